"""Population-based bandits: population-based training that explores by a Gaussian process.

Source: Parker-Holder et al. 2020, arXiv:2002.02518, as Ray Tune has it.
"""

from __future__ import annotations

import random
from typing import Any

import numpy as np

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.space import position_key
from crossreg.services.search.spec import TrialSpec, Values

__all__ = ["PB2"]

QUANTILE = 0.25


class PB2(PopulationSearch):
    """Ray Tune's scheduler; it looks through positions on every range."""

    name = "pb2"
    summary = "population-based bandits (Ray Tune's PB2) of all that crossreg learns"
    planned = False  # asynchronous: who takes over a member that is behind trains its intervals again

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return sampled positions."""
        return [
            {position_key(name): conditions.space[name].position(value) for name, value in start.items()}
            for start in super().starts(conditions, seed, size)
        ]

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return Ray Tune's scheduler, which changes positions at a configuration's top."""
        from ray.tune.schedulers import pb2

        random.seed(seed)  # it draws from the global generators
        np.random.seed(seed % 2**32)
        scheduler = pb2.PB2(
            time_attr="training_iteration",
            metric="score",
            mode="min",
            perturbation_interval=1,
            quantile_fraction=QUANTILE,
            hyperparam_bounds={position_key(name): [0.0, 1.0] for name in conditions.space},
            log_config=False,
        )
        return {"scheduler": scheduler, "top_level": True, "keep": None}
