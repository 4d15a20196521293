"""What is said of a training: its name, parameters, note, and the command that made it."""

from __future__ import annotations

import hashlib
import shlex
import sys
from pathlib import Path
from typing import Any

from services.data import Dataset
from services.tracking import redact
from services.training.assemble import batch_size, num_steps, rho_interval
from services.training.config import Placement, TrainConfig

__all__ = ["command", "in_short", "note", "params", "resolved", "slug"]


def resolved(config: TrainConfig, data: Dataset, placement: Placement) -> TrainConfig:
    """Return the configuration with what this run takes where nothing is said; a resumed run must keep it.

    That is the interval, which depends on the run's length, and the batch, which depends on the number of workers.
    """
    interval = rho_interval(config, num_steps(config, data, placement.workers))
    rho = config.rho.model_copy(update={"interval": interval})
    return config.model_copy(update={"rho": rho, "batch_size": batch_size(config, data, placement.workers)})


def params(config: TrainConfig, placement: Placement, data: Dataset) -> dict[str, Any]:
    """Return what MLflow shows as the run's parameters."""
    splits = {name: len(split) for name, split in (("train", data.train), ("reg", data.reg), ("test", data.test))}
    return {
        **resolved(config, data, placement).model_dump(mode="json"),
        "workers": placement.workers,
        "num_examples": splits,
    }


def in_short(config: TrainConfig, placement: Placement, data: Dataset) -> dict[str, Any]:
    """Return what the log says of the run; equal configurations have equal fingerprints."""
    settings = resolved(config, data, placement).model_dump_json()
    return {
        "experiment": slug(config),
        "method": config.method,
        "seed": config.seed,
        "config_fingerprint": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "data_fingerprint": data.fingerprint,
        "workers": placement.workers,
    }


def note(config: TrainConfig, data: Dataset) -> str:
    """Return the run's description, in Markdown."""
    return (
        f"**{config.method}** training of `{config.model}` on `{data.name}` "
        f"({len(data.train):,} train, {len(data.reg):,} reg, {len(data.test):,} test examples), seed {config.seed}.\n\n"
        f"    {command()}"
    )


def command() -> str:
    """Return the command that the user typed, without the passwords of its URIs."""
    by_name = Path(sys.argv[0]).name == "crossreg"
    typed = ["crossreg", *sys.argv[1:]] if by_name else ["python", *sys.orig_argv[1:]]
    return redact(shlex.join(typed))


def slug(config: TrainConfig) -> str:
    """Return the experiment's name, `<data>-<model>`, free of path separators."""
    model = config.model.replace(":", "_")
    return f"{Path(config.data.name).stem}-{model}".replace("/", "_")
