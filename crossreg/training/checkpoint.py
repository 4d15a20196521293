"""Checkpoints: one file of tensors and plain values, written atomically, read without running code."""

from __future__ import annotations

import os
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from crossreg.core.distributed import rank
from crossreg.core.errors import UserError
from crossreg.core.paths import local_path, written_whole
from crossreg.training.callback import Callback
from crossreg.training.trainer import Trainer

__all__ = ["CHECKPOINT_FILE", "SaveCheckpoint", "load_checkpoint", "save_checkpoint"]

CHECKPOINT_FILE = "checkpoint.pt"
_FORMAT = 2


def save_checkpoint(state: Mapping[str, Any], directory: str | os.PathLike[str], **identity: Any) -> Path:
    """Write a checkpoint file into a directory, complete or not at all.

    Args:
        state: what `Trainer.state_dict` returned.
        directory: created if missing.
        identity: plain values kept with it: what was trained, on which data (`model`, `data`, ...).

    Returns:
        Path of the file; `torch.load(path, weights_only=True)` opens it.
    """
    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    path = directory / CHECKPOINT_FILE
    with written_whole(path) as file:
        torch.save({"format": _FORMAT, "identity": identity, "state": dict(state)}, file)
    return path


def load_checkpoint(path: str | os.PathLike[str], **expected: Any) -> dict[str, Any]:
    """Read the state of a checkpoint, given as its file or directory.

    Args:
        path: the file, or the directory that holds `checkpoint.pt`.
        expected: values that must equal those the checkpoint was saved with.

    Raises:
        UserError: no such file, a truncated or foreign file, or one of another model or data.
    """
    path = local_path(path, "checkpoint")
    file = path / CHECKPOINT_FILE if path.is_dir() else path
    if not file.is_file():
        raise UserError(f"no checkpoint at {file}; give a {CHECKPOINT_FILE} or a directory that holds one")
    try:
        # PyTorch reads past a flipped bit: it writes checksums and does not look at them
        with zipfile.ZipFile(file) as archive:
            if (damaged := archive.testzip()) is not None:
                raise ValueError(f"checksum of {damaged} is wrong")
        content = torch.load(file, map_location="cpu", weights_only=True)
        version, identity, state = content["format"], dict(content["identity"]), dict(content["state"])
    except Exception as error:
        reason = str(error).strip().partition("\n")[0][:120]
        raise UserError(
            f"{file} is not a complete crossreg checkpoint (truncated, or another file): {reason}"
        ) from error
    if not isinstance(version, int) or version != _FORMAT:
        raise UserError(f"{file} has checkpoint format {version}; this version of crossreg reads format {_FORMAT}")
    for name, value in expected.items():
        if identity.get(name) != value:
            raise UserError(f"{file} was saved with {name} {identity.get(name)!r}, this run has {value!r}")
    return state


class SaveCheckpoint(Callback):
    """Saves a checkpoint every so many steps and after the last, from rank 0.

    Args:
        directory: where `checkpoint.pt` is kept; each replaces the one before.
        every: theta steps between checkpoints.
        identity: see `save_checkpoint`.
    """

    def __init__(self, directory: str | os.PathLike[str], every: int, **identity: Any) -> None:
        self.directory, self.every, self.identity = directory, every, identity

    def on_step(self, trainer: Trainer) -> None:
        """Save where it is due."""
        if trainer.step % self.every == 0 or trainer.ended:
            state = trainer.state_dict()
            if rank() == 0:
                save_checkpoint(state, self.directory, **self.identity)
