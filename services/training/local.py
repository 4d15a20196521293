"""A training in the driver's own process, without Ray: `--workers 0`, Ray Train's word for local training."""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from crossreg.core.errors import UserError
from crossreg.services.data import Dataset
from crossreg.services.training.assemble import checkpoint_identity
from crossreg.services.training.line import LocalLine
from crossreg.services.training.reporting import run_training
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.storage import RunFolder, take_up
from crossreg.training.checkpoint import load_checkpoint, save_checkpoint
from crossreg.training.trainer import Trainer

__all__ = ["LocalCheckpoint", "kept_here", "left_here", "train_here"]

_KEPT = 2
_RAYS_ACCOUNT = "checkpoint_manager_snapshot.json"


@dataclass(frozen=True)
class LocalCheckpoint:
    """A folder with a checkpoint in it, looked at as Ray Train's are."""

    path: str

    @contextmanager
    def as_directory(self) -> Iterator[str]:
        """Yield the folder."""
        yield self.path


def kept_here(folder: RunFolder) -> list[LocalCheckpoint]:
    """Return the checkpoints in a run's local folder, the latest first, whoever wrote them."""
    found = sorted((path for path in folder.local.glob("checkpoint_*") if path.is_dir()), reverse=True)
    return [LocalCheckpoint(str(path)) for path in found]


def left_here(config: ResolvedConfig, data: Dataset, folder: RunFolder) -> dict[str, Any] | None:
    """Return the state that a training without Ray left in a run's folder, of which Ray Train knows nothing.

    None where there is none, or where Ray Train keeps its own account.

    Raises:
        UserError: no checkpoint can be read; says why the last cannot.
    """
    kept = kept_here(folder)
    if not kept or (folder.local / _RAYS_ACCOUNT).exists():
        return None
    mistakes = []
    for one in kept:
        try:
            return load_checkpoint(one.path, **checkpoint_identity(config, data))
        except UserError as error:
            mistakes.append(error)
    raise mistakes[0]


def train_here(
    config: ResolvedConfig,
    data: Dataset,
    folder: RunFolder,
    line: LocalLine,
    state: dict[str, Any] | None,
    *,
    gpu: bool,
    checkpoint_every: int,
) -> None:
    """Train in this process, with the random numbers that a Ray worker would draw.

    Args:
        config: what to train.
        data: on what.
        folder: the run's files; a run that has checkpoints there goes on from the last.
        line: to the driver's thread.
        state: of a checkpoint to start from.
        gpu: on the current one.
        checkpoint_every: steps.

    Raises:
        UserError: a mistake that only shows while training.
    """
    described = checkpoint_identity(config, data)

    def keep(step: int, content: dict[str, Any] | None) -> None:
        assert content is not None
        # named as Ray Train names them, so that either goes on with what the other left
        final = folder.local / f"checkpoint_{datetime.now():%Y-%m-%d_%H-%M-%S.%f}"
        draft = folder.local / f".{final.name}"
        draft.mkdir(parents=True)
        save_checkpoint(content, draft, **described)
        draft.rename(final)
        # Ray Train would go on from what it knows
        (folder.local / _RAYS_ACCOUNT).unlink(missing_ok=True)
        for old in kept_here(folder)[_KEPT:]:
            shutil.rmtree(old.path)

    def restore(trainer: Trainer) -> str | None:
        if kept := kept_here(folder):
            return take_up(trainer, kept, described)
        if state is not None:
            trainer.load_state_dict(state)
        return None

    run_training(
        config,
        data,
        torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu"),
        line,
        keep=keep,
        restore=restore,
        checkpoint_every=checkpoint_every,
    )
