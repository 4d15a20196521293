from __future__ import annotations

import functools
from collections.abc import Iterable, Iterator
from pathlib import Path

import pytest

from crossreg.baselines import METHODS
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job, Listener, run_jobs
from crossreg.services.data import DataConfig, load_data
from crossreg.services.search.budget import Budget
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.runtime import start_ray

POPULATION = 3


def make_conditions(**changes: object) -> Conditions:
    """A comparison of seconds: 300 digits, a small network, few steps."""
    config = {
        "model": "mlp",
        "model_options": {"hidden": 32, "depth": 2},
        "data": {"name": "digits", "limit": 300},
        "steps": 24,
        "batch_size": 32,
        "evaluations": 3,
        "interim_test": 100,
        "final_samples": 4,
        "rho": {"interval": 4},
        "optimizer": {"lr": 0.01, "schedule": "cosine"},
        **changes,
    }
    loader = functools.lru_cache(maxsize=None)(lambda plain: load_data(DataConfig.model_validate_json(plain)))
    return Conditions(TrainConfig.model_validate(config), lambda data: loader(data.model_dump_json()), POPULATION)


class Heard(Listener):
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.budgets: dict[Job, Budget] = {}
        self.intervals: dict[Job, list[tuple[int, TrialSpec, Record]]] = {}

    def started(self, job: Job, budget: Budget) -> None:
        self.budgets[job] = budget

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        self.intervals.setdefault(job, []).append((trial, spec, record))


@pytest.fixture(scope="session")
def conditions() -> Conditions:
    return make_conditions()


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[None]:
    """A Ray of this process, which no file of another folder finds there."""
    import ray

    start_ray(Placement())
    yield
    ray.shutdown()


STOCK = ["pbt-stock", "pbt-stock-async"]
"""Ray Tune's own; they start workers at every boundary, and have a run of their own."""
TUNES = ["pbt", "pbt-async", "pb2", "asha", "optuna"]
"""Ray Tune's to run; the others run in this process too."""
LARGE = ["ensemble-mixed"]
"""A step of a convolutional network costs more than all of this small comparison."""


def run_methods(
    names: Iterable[str], conditions: Conditions, folder: Path, heard: Heard, **placement: int
) -> dict[str, Outcome]:
    """Return the outcome of each, run side by side."""
    methods = [METHODS[name] for name in names]
    jobs = [Job(method, method.budgets(["full"])[0], 0) for method in methods]
    outcomes = run_jobs(jobs, conditions, folder, heard, **placement)
    return {job.method.name: outcome for job, outcome in zip(jobs, outcomes, strict=True)}


@pytest.fixture(scope="package")
def ran(
    ray_cluster: None, conditions: Conditions, tmp_path_factory: pytest.TempPathFactory
) -> tuple[dict[str, Outcome], Heard]:
    """Every method but the stock ones, run once: in this process where that can be, else on Ray."""
    heard = Heard()
    here = [name for name in METHODS if name not in (*TUNES, *STOCK, *LARGE)]
    outcomes = run_methods(here, conditions, tmp_path_factory.mktemp("here"), heard, cpus_per_trial=0)
    return outcomes | run_methods(TUNES, conditions, tmp_path_factory.mktemp("tune"), heard), heard


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tmp_path / "comparison"
