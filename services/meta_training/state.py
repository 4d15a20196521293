"""The state of a meta-training on disk: one file beside the optimizer that it makes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from crossreg.core.errors import UserError
from crossreg.core.paths import written_whole

__all__ = ["MetaState", "load_state", "save_state", "state_path"]

_FORMAT = 1


@dataclass(frozen=True)
class MetaState:
    """All that a meta-training goes on from.

    Attributes:
        config: its configuration, as JSON.
        run_id: its MLflow run.
        trainer: of `MetaTrainer.state_dict`.
        inner: of all inner trainings, by slot.
    """

    config: str
    run_id: str
    trainer: dict[str, Any]
    inner: dict[int, dict[str, Any]]


def state_path(out: Path) -> Path:
    """Return where the state of a meta-training is kept that makes this file."""
    return out.with_name(f"{out.name}.state")


def save_state(state: MetaState, path: Path) -> None:
    """Write a state, complete or not at all.

    Raises:
        OSError: the disk does not take it.
    """
    with written_whole(path) as file:
        torch.save({"format": _FORMAT, **vars(state)}, file)


def load_state(path: Path) -> MetaState:
    """Read a state, without running code.

    Raises:
        UserError: truncated, another's, or of another version.
    """
    try:
        content = torch.load(path, map_location="cpu", weights_only=True)
        version = content.pop("format")
        state = MetaState(**content)
    except Exception as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"{str(path)!r} is no complete state of a meta-training (truncated, or another file): {reason}; remove it "
            "to begin anew"
        ) from error
    if version != _FORMAT:
        raise UserError(f"{str(path)!r} has format {version}, and this version of crossreg reads {_FORMAT}")
    return state
