"""Sharpness-aware minimization: the gradient at the worst point near the weights.

Source: Foret et al. 2021, arXiv:2010.01412; GSAM: Zhuang et al. 2022, arXiv:2203.08065.
"""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["GSAM", "SAM"]


class SAM(SingleRun):
    """Two gradients a step, so a matched budget pays for half the steps."""

    name = "sam"
    summary = "sharpness-aware minimization (two gradients a step) in place of what crossreg learns"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what takes the other optimizer."""
        optimizer = {**conditions.single(seed).optimizer.model_dump(), "name": self.name}
        return {"optimizer": optimizer, **conditions.regularized_by()}


class GSAM(SAM):
    """SAM that also lowers the surrogate gap."""

    name = "gsam"
    summary = "SAM that also lowers the surrogate gap, in place of what crossreg learns"
