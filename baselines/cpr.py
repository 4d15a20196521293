"""Constrained parameter regularization: a bound on every parameter matrix's norm in place of weight decay.

Source: Franke et al. 2023, arXiv:2311.09058.
"""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["CPR"]


class CPR(SingleRun):
    """The bounds are the norms after a warm start."""

    name = "cpr"
    summary = "constrained parameter regularization (AdamCPR) in place of what crossreg learns"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what takes the other optimizer, without the weight decay that it replaces."""
        given = conditions.single(seed).optimizer
        changes = conditions.regularized_by()
        del changes["regularizers"]["weight_decay"]
        return {**changes, "optimizer": {"name": "cpr", "lr": given.lr, "schedule": given.schedule}}
