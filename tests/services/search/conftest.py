"""Trials in this process, and one Ray for all searches of this folder."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg.services.search.spec import TrialSpec
from crossreg.services.search.trial import States, Trial
from tests.services.search.population import digits, start_ray


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)  # as a worker of one CPU: sums are then rounded alike


@pytest.fixture
def states(tmp_path: Path) -> States:
    return States(tmp_path / "states")


MakeTrial = Callable[..., Trial]


@pytest.fixture
def trial_of(states: States) -> MakeTrial:
    """Return trials that may go on from one another."""
    specs: dict[str, TrialSpec] = {}

    def make(spec: TrialSpec, keep: int | None = None, kind: type[Trial] = Trial) -> Trial:
        specs[spec.digest] = spec
        return kind(spec, specs, {spec.data: digits()}, states, keep)

    return make


@pytest.fixture(scope="package")
def ray_cluster() -> Iterator[Any]:
    """A local Ray of four CPUs, however many there are."""
    import ray

    if ray.is_initialized():
        ray.shutdown()
    start_ray()
    yield ray
    ray.shutdown()
