"""A baseline that the project does not have: ten times the weight decay."""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["HeavyDecay"]


class HeavyDecay(SingleRun):
    """Nothing is tuned."""

    name = "heavy-decay"
    summary = "ten times the weight decay"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what makes it heavy."""
        return conditions.regularized_by(weight_decay=10 * conditions.reference(seed).weight_decay)
