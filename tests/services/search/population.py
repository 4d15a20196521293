"""Small trials and a small population, for tests in this process and for a driver process that is killed."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossreg.losses import as_loss
from crossreg.models import build
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.services.search.space import explorer, space_of
from crossreg.services.search.spec import TrialSpec, Values
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import ResolvedConfig, resolve
from crossreg.training.compute import measure_flops
from tests.waiting import wait_for

SIZE, GENERATIONS, INTERVAL = 4, 5, 100
SIGMA = ("noise/00_norm1", "noise/01_norm2")
SPACE = space_of(SIGMA)
FIXED = {"noise": {"value": 0.1}, "temperature": {"value": 1.0}}
LEARNED = {"noise": None, "temperature": None}
DIVERGING = 3
"""The member whose learning rate is so high that its first interval ends in NaN."""


@functools.cache
def digits() -> Dataset:
    return load_data(DataConfig(name="digits", limit=400))


def config(**changes: Any) -> ResolvedConfig:
    values: dict[str, Any] = {
        "model": "mlp",
        "model_options": {"hidden": 32, "depth": 2},
        "data": {"name": "digits", "limit": 400, "seed": 0},
        "regularizers": FIXED,
        "optimizer": {},
        "steps": 40,
        "batch_size": 32,
        "evaluations": 4,
        "evaluate_samples": 2,
        "final_samples": 4,
        "rho": {"interval": 5},
    }
    values |= changes
    values["optimizer"] = {"schedule": "cosine", **values["optimizer"]}
    return resolve(TrainConfig.model_validate(values), digits())


def spec(select: bool = True, schedule: Any = None, **changes: Any) -> TrialSpec:
    return TrialSpec(config=config(**changes), data=digits().fingerprint, select=select, schedule=schedule)


def sigma(first: float, second: float | None = None) -> Values:
    return dict(zip(SIGMA, (first, first if second is None else second), strict=True))


def members(size: int = SIZE, generations: int = GENERATIONS, **changes: Any) -> list[TrialSpec]:
    """Return members that are equal but for their seeds, of which one diverges."""
    lengths = {"steps": generations * INTERVAL, "evaluations": generations, "final_test": False, "interim_test": 100}
    return [
        spec(**{"seed": index, "optimizer": {"lr": 1e30 if index == DIVERGING else 1e-3}, **lengths, **changes})
        for index in range(size)
    ]


def starts(size: int = SIZE) -> list[Values]:
    return [sigma(0.05 * 5**index) for index in range(size)]


def population(
    folder: Path,
    *,
    scheduler: Any = None,
    seed: int = 7,
    specs: list[TrialSpec] | None = None,
    **placement: Any,
) -> list[Any]:
    """Run the population on the Ray that is there; `policy.jsonl` in the folder tells of its exploits."""
    import ray

    from crossreg.services.search.run import run_search
    from crossreg.services.search.search import Search

    folder.mkdir(parents=True, exist_ok=True)
    scheduler = scheduler or scheduler_of(folder, seed=seed)
    data = {digits().fingerprint: ray.put(digits())}
    return run_search(Search(specs or members(), starts(), scheduler), data, folder, **placement)


def punctual_mlp(*, folder: str, late: bool = False, **options: Any) -> nn.Module:
    """Return an `mlp` once all members of a population have got as far, so that none is ahead by its start.

    One that is late trains when another has its first interval behind it.
    """
    model = build("mlp", **options)
    x, y = torch.zeros(2, *options["input_shape"]), torch.zeros(2, dtype=torch.long)
    measure_flops(model, as_loss("classification"), x, y, 1)  # what is imported at the first use
    torch.optim.AdamW(model.parameters())
    (Path(folder) / f"{os.getpid()}.there").touch()
    wait_for(
        lambda: len(list(Path(folder).glob("*.there"))) >= SIZE,
        f"{SIZE} members at the same time (is a CPU not free?)", 120, every=0.01,
    )  # fmt: skip
    if late:
        wait_for(lambda: list(Path(folder, "states").glob("*.json")), "first interval of another", 120, every=0.01)
    return model


def scheduler_of(folder: Path, **options: Any) -> Any:
    from crossreg.services.search.scheduler import PopulationScheduler

    return PopulationScheduler(explorer(SPACE), log=folder / "policy.jsonl", **options)


def all_cpus() -> None:
    """Wait until all CPUs of the Ray of these tests are free, as they are a moment after their actors were killed.

    Ray 2.60 sometimes never gives one back that was freed while the machine was busy; then another Ray is started.
    """
    import ray

    def free() -> bool:
        return bool(ray.available_resources().get("CPU", 0) >= SIZE)

    try:
        wait_for(free, f"{SIZE} free CPUs", 30, every=0.1)
    except AssertionError as error:
        warnings.warn(f"Ray is started anew: {error}", stacklevel=2)
        ray.shutdown()
        start_ray()
        wait_for(free, f"{SIZE} free CPUs of a new Ray", 30, every=0.1)


def start_ray() -> None:
    import ray

    ray.init(address="local", num_cpus=SIZE, include_dashboard=False, log_to_driver=False, logging_level="ERROR")


if __name__ == "__main__":
    start_ray()
    population(Path(sys.argv[1]))
