"""Population-based training in one case of a study.

The search is that of `crossreg.baselines.pbt`, which stands beside the studies, so that none of them imports it.

Source: Jaderberg et al. 2017, Population Based Training of Neural Networks, arXiv:1711.09846.
"""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job, run_jobs
from crossreg.services.comparison.session import make_conditions
from crossreg.services.data import DataConfig
from crossreg.services.search.space import explorer
from crossreg.services.search.spec import TrialSpec
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.runtime import ray_for
from crossreg.studies.paper.training import COSINE

__all__ = ["Population", "conditions_of", "run_population"]

FACTORS = (0.8, 1.25)
RESAMPLE = 0.25
QUANTILE = 0.25


class Population(PopulationSearch):
    """Members meet at every interval; the worst quarter goes on from the best, with values that are perturbed."""

    name = "pbt"
    summary = "population-based training of all that crossreg learns, synchronous"

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return the scheduler, and how many states of a member are kept."""
        from crossreg.services.search.scheduler import PopulationScheduler

        explore = explorer(conditions.space, FACTORS, RESAMPLE)
        return {"scheduler": PopulationScheduler(explore, QUANTILE, True, seed=seed), "keep": 2}


def conditions_of(config: Mapping[str, Any], data: DataConfig, seed: int, population: int) -> Conditions:
    """Return what the members share.

    Args:
        config: fields of `TrainConfig` but data and seed, of the cross-regularized training.
        data: what to load.
        seed: of split, weights and all draws.
        population: how many members there are.
    """
    # members are compared ten times, and looked at on few test examples until one of them is chosen
    whole = {**COSINE, **config, "evaluations": 10, "interim_test": 100, "data": data.model_dump(), "seed": seed}
    return make_conditions(TrainConfig.model_validate(whole), population)


def run_population(conditions: Conditions, seed: int, budgets: Sequence[str]) -> list[Outcome]:
    """Return what a population reaches under each budget, on a Ray of its own unless one runs.

    Args:
        conditions: see `conditions_of`.
        seed: of the run.
        budgets: "full", a training's compute for each member, or "matched", that of one for all of them.
    """
    gpu = torch.cuda.is_available()
    with ray_for(Placement(gpu=gpu)), tempfile.TemporaryDirectory() as folder:
        jobs = [Job(Population(), budget, seed) for budget in budgets]
        return run_jobs(jobs, conditions, Path(folder), gpu=gpu)
