"""What a run may cost, as it is written: `90s`, `5m`, `2h`, `1e15flops`, `0.1search`."""

from __future__ import annotations

import math
import re

from crossreg.core.errors import UserError, quoted
from crossreg.services.training.tuning import mean_passes
from crossreg.training.budget import Budget

__all__ = ["parse_budget"]

_SECONDS = {"s": 1.0, "m": 60.0, "h": 3600.0}
_FORM = re.compile(r"([0-9.]+(?:e[+-]?[0-9]+)?)\s*(s|m|h|flops|search)", re.IGNORECASE)


def parse_budget(text: str) -> Budget:
    """Return the budget that a text names.

    A share of a search is that of `crossreg.services.training.tuning`, of trials that are as long as they are on
    average.

    Raises:
        UserError: it names none.
    """
    text = text.strip()
    found = _FORM.fullmatch(text)
    amount = float(found[1]) if found and found[1].count(".") <= 1 and found[1] != "." else math.nan
    if found is None or not 0 < amount < math.inf:
        raise UserError(
            f"budget is {quoted(text)}; give seconds, minutes or hours of training (90s, 5m, 2h), floating point "
            "operations (1e15flops) or a share of a search of 16 trainings (0.1search)"
        )
    unit = found[2].lower()
    if unit == "flops":
        return Budget(amount, "flops", text)
    if unit == "search":
        return Budget(amount * mean_passes(), "passes", text)
    return Budget(amount * _SECONDS[unit], "seconds", text)
