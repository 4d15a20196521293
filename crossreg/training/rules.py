"""Every stopping rule by name: a new one is a file beside `stopping` and a line here."""

from __future__ import annotations

from collections.abc import Mapping

from crossreg.core.errors import UserError, nearest, quoted
from crossreg.training.stopping import Patience, StoppingRule

__all__ = ["RULES", "stopping_rule"]

RULES: dict[str, type[StoppingRule]] = {rule.name: rule for rule in (Patience,)}
"""Every rule by its name."""


def stopping_rule(given: Mapping[str, float]) -> StoppingRule | None:
    """Return the rule that a configuration names, e.g. `{"patience": 5}`; None for none.

    Raises:
        UserError: more than one, an unknown one, or a setting out of range.
    """
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"stopping names {', '.join(given)}; give one rule")
    ((name, value),) = given.items()
    if name not in RULES:
        raise UserError(
            f"no stopping rule is called {quoted(name)}{nearest(name, RULES)}; there are {', '.join(RULES)}"
        )
    return RULES[name](value)
