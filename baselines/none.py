"""The same training without any noise."""

from __future__ import annotations

from typing import Any

from services.comparison.method import SingleRun, Study

__all__ = ["AllData", "Plain"]


class Plain(SingleRun):
    """No regularization but the optimizer's own; the regularization split only fits the temperature."""

    name = "none"
    summary = "no noise, same splits"
    all_data = False

    def changes(self, study: Study, seed: int) -> dict[str, Any]:
        """Return what leaves the noise out."""
        return {"method": "none", "all_data": self.all_data}


class AllData(Plain):
    """The regularization split is trained on too."""

    name = "none-all-data"
    summary = "no noise, trained on the regularization split too"
    all_data = True
