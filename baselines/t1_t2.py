"""T1-T2: the same noise scales, learned by differentiating the held-out loss through one step of the weights.

Source: Luketina et al. 2016, arXiv:1511.06727.
"""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["T1T2Run"]


class T1T2Run(SingleRun):
    """The cross-regularized run with another gradient."""

    name = "t1-t2"
    summary = "T1-T2: what crossreg learns follows the held-out loss through one step of the weights"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what takes the other gradient."""
        conditions.given_length(self.name, "learns by another gradient what crossreg learns")
        return {"rho": {**conditions.reference(seed).rho.model_dump(), "estimator": "t1-t2"}}
