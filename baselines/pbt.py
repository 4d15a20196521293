"""Population-based training of all that the cross-regularized run learns, in four forms.

The first, `crossreg.services.comparison.population`, is a study's too.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.population import FACTORS, PBT, QUANTILE, RESAMPLE
from crossreg.services.search.space import value_key
from crossreg.services.search.spec import TrialSpec, Values

__all__ = ["PBT", "AsynchronousPBT", "StockAsynchronousPBT", "StockPBT"]


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
    planned = False  # who takes over a member that is behind trains its intervals again
