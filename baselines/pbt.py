"""Population-based training of the noise scales.

Source: Jaderberg et al. 2017, Population Based Training of Neural Networks, arXiv:1711.09846. Truncation selection by
the regularization split's score; knobs are perturbed by 0.8 or 1.25, or resampled with probability 1/4.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from services.comparison.method import PopulationSearch, Space, Study
from services.search.spec import Knobs, TrialSpec, tune_name

__all__ = ["PBT", "AsynchronousPBT", "StockAsynchronousPBT", "StockPBT", "explore"]

FACTORS = (0.8, 1.25)
RESAMPLE = 0.25
QUANTILE = 0.25


def explore(space: Space) -> Any:
    """Return the function that makes a donor's knobs into new ones."""

    def explored(knobs: Knobs, rng: random.Random) -> Knobs:
        new = {}
        for name, (low, high) in space.items():
            if rng.random() < RESAMPLE:
                new[name] = float(np.exp(rng.uniform(np.log(low), np.log(high))))
            else:
                new[name] = min(max(knobs[name] * rng.choice(FACTORS), low), high)
        return new

    return explored


class PBT(PopulationSearch):
    """Members meet at every interval."""

    name = "pbt"
    summary = "population-based training of every layer's noise scale, synchronous"
    synchronous = True

    def how(self, study: Study, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return our scheduler."""
        from services.search.scheduler import PopulationScheduler

        return {
            "scheduler": PopulationScheduler(explore(study.noise_space), QUANTILE, self.synchronous, seed=seed),
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

    def how(self, study: Study, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return Ray Tune's scheduler; it clones through checkpoints, and changes knobs at a configuration's top."""
        from ray.tune.schedulers import PopulationBasedTraining

        random.seed(seed)  # it draws from the global generators
        np.random.seed(seed % 2**32)
        mutations = {
            tune_name(name): (lambda low=low, high=high: float(np.exp(random.uniform(np.log(low), np.log(high)))))
            for name, (low, high) in study.noise_space.items()
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
