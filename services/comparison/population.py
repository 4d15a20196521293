"""Population-based training of all that the cross-regularized run learns.

Source: Jaderberg et al. 2017, Population Based Training of Neural Networks, arXiv:1711.09846. Truncation selection by
the regularization split's score; values are perturbed by 0.8 or 1.25, or resampled with probability 1/4.
"""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.space import explorer
from crossreg.services.search.spec import TrialSpec

__all__ = ["FACTORS", "PBT", "QUANTILE", "RESAMPLE"]

FACTORS = (0.8, 1.25)
RESAMPLE = 0.25
QUANTILE = 0.25


class PBT(PopulationSearch):
    """Members meet at every interval."""

    name = "pbt"
    summary = "population-based training of all that crossreg learns, synchronous"
    synchronous = True

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return our scheduler."""
        from crossreg.services.search.scheduler import PopulationScheduler

        explore = explorer(conditions.space, FACTORS, RESAMPLE)
        return {
            "scheduler": PopulationScheduler(explore, QUANTILE, self.synchronous, seed=seed),
            "keep": 2 if self.synchronous else None,
        }
