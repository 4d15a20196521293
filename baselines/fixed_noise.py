"""The same noise everywhere, not learned and not tuned."""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun

__all__ = ["FixedNoise", "FixedNoiseAllData"]

SIGMA = 0.5
"""Noise scale of every layer, in standard deviations of the normalized activation."""


class FixedNoise(SingleRun):
    """Nothing is tuned."""

    name = "fixed-noise"
    summary = f"noise of scale {SIGMA} after every normalization layer, not tuned"
    all_data = False

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what fixes the noise, in the places and the form that the comparison's has."""
        own = conditions.config.regularizers.get("noise")
        noise = {"value": SIGMA, **(own.options if own else {})}
        return {"all_data": self.all_data, **conditions.regularized_by(noise=noise)}


class FixedNoiseAllData(FixedNoise):
    """The regularization split is trained on too."""

    name = "fixed-noise-all-data"
    summary = f"noise of scale {SIGMA}, trained on the regularization split too"
    all_data = True
