"""What runs in every Ray Train worker: a training whose checkpoints Ray Train keeps."""

from __future__ import annotations

import tempfile
from typing import Any

import ray
import ray.train
import torch

from crossreg.core.distributed import world_size
from crossreg.core.errors import UserError
from crossreg.services.data import Dataset
from crossreg.services.logs import bind
from crossreg.services.training.assemble import checkpoint_identity
from crossreg.services.training.feed import StreamError
from crossreg.services.training.line import RayLine
from crossreg.services.training.reporting import run_training
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.storage import kept_checkpoints, take_up
from crossreg.services.training.watchdog import Watchdog
from crossreg.training.checkpoint import save_checkpoint
from crossreg.training.trainer import Trainer

__all__ = ["train_worker"]


def train_worker(settings: dict[str, Any]) -> None:
    """Train on this worker; rank 0 tells the driver's mailbox what happens.

    Args:
        settings: `config` (ResolvedConfig as plain values), `data` (object reference of the Dataset), `mailbox`
            (actor handle), `run_id` (of the MLflow run), `checkpoint_every` (steps), `preemptible` (whether nodes
            may be drained), `hang_timeout` (seconds), `start_from` (reference of a checkpoint's state, or None).
    """
    line = RayLine(settings["mailbox"])
    bind(settings["run_id"])
    if line.mistaken():
        return
    try:
        _train(settings, line)
    except UserError as error:
        # a retry would end the same way, so this is told to the driver instead of failing the worker
        line.tell(str(error))
        if isinstance(error, StreamError) and world_size() > 1:
            raise  # the others wait for this worker: all are started again, and end above


def _train(settings: dict[str, Any], line: RayLine) -> None:
    config = ResolvedConfig.model_validate(settings["config"])
    data: Dataset = ray.get(settings["data"])
    described = checkpoint_identity(config, data)

    def keep(step: int, state: dict[str, Any] | None) -> None:
        """Report to Ray Train, which is a barrier over the workers."""
        if state is None:
            ray.train.report({"step": step})
            return
        with tempfile.TemporaryDirectory() as directory:
            save_checkpoint(state, directory, **described)
            ray.train.report({"step": step}, checkpoint=ray.train.Checkpoint.from_directory(directory))

    def restore(trainer: Trainer) -> str | None:
        """Go on from the run's own last checkpoint, else from the state that the driver read, else start."""
        checkpoint = ray.train.get_checkpoint()
        if checkpoint is not None:
            return take_up(trainer.load_state_dict, kept_checkpoints(checkpoint), described)
        if settings["start_from"] is not None:
            trainer.load_state_dict(ray.get(settings["start_from"]))
        return None

    run_training(
        config,
        data,
        torch.device("cuda", torch.cuda.current_device()) if settings["gpu"] else torch.device("cpu"),
        line,
        keep=keep,
        restore=restore,
        checkpoint_every=settings["checkpoint_every"],
        watch=[Watchdog(settings["hang_timeout"])],
        preempted=_preempted if settings["preemptible"] else None,
    )


def _preempted() -> bool:
    return ray.train.get_preemption_info() is not None
