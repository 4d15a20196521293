"""Noise of one scale in all layers, as one would guess it."""

from __future__ import annotations

from typing import Any

from services.comparison.method import SingleRun, Study

__all__ = ["AllData", "FixedNoise"]

SIGMA = 0.5
"""Noise scale of every layer, in standard deviations of the normalized activation."""


class FixedNoise(SingleRun):
    """Nothing is tuned."""

    name = "fixed-noise"
    summary = f"noise of scale {SIGMA} after every normalization layer, not tuned"
    all_data = False

    def changes(self, study: Study, seed: int) -> dict[str, Any]:
        """Return what fixes the noise."""
        return {"method": "fixed", "knobs": dict.fromkeys(study.noise_space, SIGMA), "all_data": self.all_data}


class AllData(FixedNoise):
    """The regularization split is trained on too."""

    name = "fixed-noise-all-data"
    summary = f"noise of scale {SIGMA}, trained on the regularization split too"
    all_data = True
