"""Population-based training of all that the cross-regularized run learns.

Source: Jaderberg et al. 2017, Population Based Training of Neural Networks, arXiv:1711.09846. Truncation selection by
the regularization split's score; values are perturbed by 0.8 or 1.25, or resampled with probability 1/4.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.space import explorer, value_key
from crossreg.services.search.spec import TrialSpec, Values

__all__ = ["PBT", "AsynchronousPBT", "StockAsynchronousPBT", "StockPBT"]

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


class AsynchronousPBT(PBT):
    """A member compares itself with what the others last scored, and never waits."""

    name = "pbt-async"
    summary = "population-based training, asynchronous"
    synchronous = False


class StockPBT(PBT):
    """Ray Tune's own scheduler, for comparison."""

    name = "pbt-stock"
    summary = "Ray Tune's own PopulationBasedTraining, synchronous"

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return sampled values under the keys that the scheduler changes."""
        return [
            {value_key(name): value for name, value in start.items()}
            for start in super().starts(conditions, seed, size)
        ]

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return Ray Tune's scheduler; it clones through checkpoints, and changes values at a configuration's top."""
        from ray.tune.schedulers import PopulationBasedTraining

        random.seed(seed)  # it draws from the global generators
        np.random.seed(seed % 2**32)
        mutations = {
            value_key(name): (lambda one=one: one.at(random.random())) for name, one in conditions.space.items()
        }
        scheduler = PopulationBasedTraining(
            time_attr="training_iteration",
            metric="score",
            mode="min",
            perturbation_interval=1,
            hyperparam_mutations=mutations,
            quantile_fraction=QUANTILE,
            resample_probability=RESAMPLE,
            perturbation_factors=FACTORS,
            synch=self.synchronous,
            log_config=False,
        )
        return {"scheduler": scheduler, "top_level": True, "keep": None}


class StockAsynchronousPBT(StockPBT):
    """Ray Tune's own scheduler in its default, asynchronous form."""

    name = "pbt-stock-async"
    summary = "Ray Tune's own PopulationBasedTraining, asynchronous"
    synchronous = False
