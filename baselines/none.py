"""The same training without what crossreg learns."""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["Plain", "PlainAllData"]


class Plain(SingleRun):
    """No regularization but what is fixed; the regularization split only fits the temperature."""

    name = "none"
    summary = "the same without what crossreg learns, same splits"
    all_data = False

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what leaves out all that is learned."""
        return {"all_data": self.all_data, **conditions.regularized_by()}


class PlainAllData(Plain):
    """The regularization split is trained on too."""

    name = "none-all-data"
    summary = "the same without what crossreg learns, trained on the regularization split too"
    all_data = True
