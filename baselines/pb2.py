"""Population-based bandits: population-based training that explores by a Gaussian process.

Source: Parker-Holder et al. 2020, arXiv:2002.02518, as Ray Tune has it.
"""

from __future__ import annotations

import math
import random
from typing import Any

import numpy as np

from services.comparison.method import PopulationSearch, Study
from services.search.spec import Knobs, TrialSpec, tune_name

__all__ = ["PB2"]

QUANTILE = 0.25


class PB2(PopulationSearch):
    """Ray Tune's scheduler; it looks through logarithms of the noise scales."""

    name = "pb2"
    summary = "population-based bandits (Ray Tune's PB2) of every layer's noise scale"

    def starts(self, study: Study, seed: int, size: int) -> list[Knobs]:
        """Return logarithms of sampled noise scales."""
        return [
            {f"log10({name})": math.log10(value) for name, value in start.items()}
            for start in super().starts(study, seed, size)
        ]

    def how(self, study: Study, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return Ray Tune's scheduler, which changes knobs at a configuration's top."""
        from ray.tune.schedulers import pb2

        random.seed(seed)  # it draws from the global generators
        np.random.seed(seed % 2**32)
        scheduler = pb2.PB2(
            time_attr="training_iteration",
            metric="score",
            mode="min",
            perturbation_interval=1,
            quantile_fraction=QUANTILE,
            hyperparam_bounds={
                tune_name(f"log10({name})"): [math.log10(low), math.log10(high)]
                for name, (low, high) in study.noise_space.items()
            },
            log_config=False,
        )
        return {"scheduler": scheduler, "top_level": True, "keep": None}
