"""Population-based training in one case of a study."""

from __future__ import annotations

import tempfile
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.population import PBT
from crossreg.services.comparison.run_jobs import Job, run_jobs
from crossreg.services.comparison.session import make_conditions
from crossreg.services.data import DataConfig
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.runtime import ray_for
from crossreg.studies.paper.training import COSINE

__all__ = ["conditions_of", "run_population"]


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
        jobs = [Job(PBT(), budget, seed) for budget in budgets]
        return run_jobs(jobs, conditions, Path(folder), gpu=gpu)
