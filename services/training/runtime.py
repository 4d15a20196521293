"""Joining a Ray cluster, or starting the embedded one, with a quiet console."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.core.imports import hidden_by
from crossreg.services.training.config import Placement

__all__ = ["available_cpus", "check_placement", "ray_for", "resources_per_worker", "start_ray"]

_log = logging.getLogger(__name__)

# set before Ray is first imported; a value the user has set wins
_ENVIRONMENT = {
    # under `uv run`, Ray would have every worker build an environment of its own
    "RAY_ENABLE_UV_RUN_RUNTIME_ENV": "0",
    # a report, a failure and the end of training are noticed at the controller's next poll (2 s by default)
    "RAY_TRAIN_HEALTH_CHECK_INTERVAL_S": "0.2",
    "RAY_TRAIN_V2_ENABLED": "1",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_DEDUP_LOGS": "0",
    # one warning a worker about accelerator variables that this project does not use
    "RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO": "0",
}


def available_cpus() -> int:
    """Return the CPUs this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def check_placement(placement: Placement) -> None:
    """Check what can be checked before Ray starts.

    Raises:
        UserError: more workers than CPUs (on one machine), no GPU where one is asked for, an unwritable storage path.
    """
    if "RAY_ADDRESS" not in os.environ and placement.workers > available_cpus():
        raise UserError(
            f"workers is {placement.workers}, but this machine has {available_cpus()} CPUs; use at most that many, or "
            "join a cluster with RAY_ADDRESS"
        )
    if placement.gpu and "RAY_ADDRESS" not in os.environ:
        import torch

        found = torch.cuda.device_count()
        if found < placement.sizes[-1]:
            raise UserError(f"--gpu with {placement.workers} workers needs as many GPUs; this machine has {found}")


def start_ray(placement: Placement, *, reading: bool = False) -> dict[str, float]:
    """Connect to the cluster of `RAY_ADDRESS`, or start one inside this process; return its resources.

    Args:
        placement: where workers are to run.
        reading: whether tasks beside them read the training data.

    Raises:
        UserError: the cluster cannot be reached, or is smaller than the placement.
    """
    if placement.workers == 0:
        raise UserError("workers is 0, which is for a training in this process; this runs on Ray, so use 1 or more")
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    if "RAY_ADDRESS" not in os.environ:
        # nobody drains a cluster that lives in this process
        os.environ.setdefault("RAY_TRAIN_ENABLE_PREEMPTION_WATCHER", "0")
    import ray

    if not ray.is_initialized():
        _say_what_is_hidden()
        address = os.environ.get("RAY_ADDRESS", "local")
        # a Ray of our own has no dashboard: its ten processes take 3 s of every start, and MLflow shows the run
        # what reads data shares the CPUs with the workers, who reserve all of them: Ray counts them twice
        embedded = {"num_cpus": available_cpus() * (2 if reading else 1), "include_dashboard": False}
        options: dict[str, Any] = embedded if address == "local" else {}
        if not placement.verbose:
            options |= {"log_to_driver": False, "logging_level": "ERROR"}
        try:
            ray.init(address=address, **options)
        except (ConnectionError, RuntimeError, ValueError) as error:
            raise UserError(f"cannot join the Ray cluster at {address!r}: {error}") from error
    resources: dict[str, float] = ray.cluster_resources()
    needed, fewest = "GPU" if placement.gpu else "CPU", placement.sizes[0]
    if resources.get(needed, 0) < fewest:
        asked = "workers" if placement.min_workers is None else "min_workers"
        raise UserError(f"{asked} is {fewest}, but the cluster has {resources.get(needed, 0):g} {needed}s; use fewer")
    reserved = placement.workers * resources_per_worker(placement)["CPU"]
    if reading and resources.get("CPU", 0) < reserved + 1:
        raise UserError(
            f"{placement.workers} workers reserve {reserved:g} of the cluster's {resources.get('CPU', 0):g} CPUs, and "
            "reading the training data takes one more; use fewer workers, or --no-stream"
        )
    return resources


@contextmanager
def ray_for(placement: Placement) -> Iterator[None]:
    """Have a Ray as `start_ray` gives it, and leave it at the end unless it was there before."""
    # not imported for the question: `start_ray` sets up what Ray reads when it is
    before = "ray" in sys.modules and sys.modules["ray"].is_initialized()
    try:
        start_ray(placement)
        yield
    finally:
        if not before:
            import ray

            ray.shutdown()


def _say_what_is_hidden() -> None:
    """Warn of files in the working directory that Ray's workers import instead of the packages of these names.

    Raises:
        UserError: one of them takes the place of this package.
    """
    found = hidden_by(Path.cwd())
    mine = found.pop("crossreg", None)
    for name, file in found.items():
        _log.warning(
            "%s hides the module %r from Ray's workers, which look into the working directory first; rename it if the "
            "training fails",
            file,
            name,
        )
    if mine is not None:
        raise UserError(
            f"Ray's workers look into the working directory first, and {mine} hides the package 'crossreg' from them; "
            "rename it, or start from another directory"
        )


def resources_per_worker(placement: Placement) -> dict[str, float]:
    """Return what each worker reserves: on one machine an equal share of its CPUs, on a cluster one CPU."""
    if "RAY_ADDRESS" in os.environ:
        return {"CPU": 1}
    return {"CPU": max(1, available_cpus() // placement.workers)}
