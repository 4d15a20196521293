"""A training in the driver's own process, without Ray: `--workers 0`, Ray Train's word for local training."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import torch

from crossreg.services.data import Dataset
from crossreg.services.training.assemble import checkpoint_identity
from crossreg.services.training.line import Line, LocalLine
from crossreg.services.training.messages import Note
from crossreg.services.training.reporting import run_training
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.storage import RunFolder, take_up
from crossreg.training.checkpoint import save_checkpoint
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


def left_here(config: ResolvedConfig, data: Dataset, folder: RunFolder, line: Line) -> dict[str, Any] | None:
    """Return the state of the last checkpoint in a run's folder that Ray Train does not know of.

    It was left by a training without Ray, or Ray Train's own account of its checkpoints is torn: a full disk, or a
    machine that goes down, leaves half a file, which Ray Train itself does not start with. None where there is no
    checkpoint, or where Ray Train keeps its account.

    Args:
        config: what is trained.
        data: on what.
        folder: the run's files.
        line: to the driver, which is told what is damaged, and what is used instead.

    Raises:
        UserError: no checkpoint can be read; says why the last cannot.
    """
    account, kept = folder.local / _RAYS_ACCOUNT, kept_here(folder)
    if account.exists():
        try:
            json.loads(account.read_bytes())
        except ValueError:
            account.unlink()
            instead = "training goes on from the last checkpoint beside it" if kept else "no checkpoint is beside it"
            line.send([Note(f"{account}, Ray Train's list of the run's checkpoints, is torn; {instead}")])
        else:
            return None
    if not kept:
        return None
    states: list[dict[str, Any]] = []
    if said := take_up(states.append, kept, checkpoint_identity(config, data)):
        line.send([Note(said)])
    return states[0]


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
            return take_up(trainer.load_state_dict, kept, described)
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
