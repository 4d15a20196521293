"""One noise scale for all layers, from a grid."""

from __future__ import annotations

import numpy as np

from services.comparison.method import SIGMA_RANGE, PopulationSearch, Study
from services.search.spec import Knobs

__all__ = ["Grid"]


class Grid(PopulationSearch):
    """As many scales as the population has members, evenly spaced on a logarithmic scale."""

    name = "grid"
    summary = "one noise scale for all layers, from a grid"

    def starts(self, study: Study, seed: int, size: int) -> list[Knobs]:
        """Return the grid's points; a grid of one point is the middle of the range."""
        low, high = SIGMA_RANGE
        scales = np.geomspace(low, high, size) if size > 1 else [np.sqrt(low * high)]
        return [dict.fromkeys(study.noise_space, float(scale)) for scale in scales]
