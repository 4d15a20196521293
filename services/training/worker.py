"""What runs in every Ray Train worker: assemble the training, restore it, report, fit."""

from __future__ import annotations

import logging
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import ray
import ray.train
import torch
import torch.distributed as dist

from crossreg.core.distributed import rank, world_size
from crossreg.core.errors import UserError
from crossreg.regularizer import RhoUpdate
from crossreg.services.data import Dataset
from crossreg.services.logs import bind
from crossreg.services.training.assemble import build_trainer, checkpoint_identity
from crossreg.services.training.feed import StreamError
from crossreg.services.training.messages import (
    CheckpointWritten,
    Ended,
    Message,
    Metrics,
    Mistake,
    Note,
    Progress,
    Seen,
    Started,
    Stopped,
)
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.result import result_of
from crossreg.services.training.stopping import StopOnRequest
from crossreg.services.training.storage import kept_checkpoints
from crossreg.services.training.watchdog import Watchdog
from crossreg.training.callback import Callback
from crossreg.training.checkpoint import load_checkpoint, save_checkpoint
from crossreg.training.diagnostics import Diagnosis, Diagnostics
from crossreg.training.trainer import Trainer

__all__ = ["take_up", "train_worker"]

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.3


def train_worker(settings: dict[str, Any]) -> None:
    """Train on this worker; rank 0 tells the driver's mailbox what happens.

    Args:
        settings: `config` (ResolvedConfig as plain values), `data` (object reference of the Dataset), `mailbox`
            (actor handle), `run_id` (of the MLflow run), `checkpoint_every` (steps), `preemptible` (whether nodes
            may be drained), `hang_timeout` (seconds), `start_from` (reference of a checkpoint's state, or None).
    """
    mailbox = settings["mailbox"]
    bind(settings["run_id"])
    if ray.get(mailbox.mistaken.remote()):
        return
    try:
        _train(settings, mailbox)
    except UserError as error:
        # a retry would end the same way, so this is told to the driver instead of failing the worker
        ray.get(mailbox.push.remote([Mistake(str(error))]))
        if isinstance(error, StreamError) and world_size() > 1:
            raise  # the others wait for this worker: all are started again, and end above


def _train(settings: dict[str, Any], mailbox: Any) -> None:
    config = ResolvedConfig.model_validate(settings["config"])
    data: Dataset = ray.get(settings["data"])
    device = torch.device("cuda", torch.cuda.current_device()) if settings["gpu"] else torch.device("cpu")
    described = checkpoint_identity(config, data)
    metrics = ReportMetrics(mailbox) if rank() == 0 else None
    checkpoints = ReportCheckpoint(settings["checkpoint_every"], described, metrics)
    stopping = StopOnRequest(mailbox, checkpoints.write, _preempted if settings["preemptible"] else None)
    callbacks: list[Callback] = [Watchdog(settings["hang_timeout"]), checkpoints, stopping]
    if metrics is not None:
        callbacks[:0] = [metrics, ReportDiagnoses(mailbox)]
    with _together():
        trainer = build_trainer(config, data, device, callbacks)
        damage = _restore(trainer, settings["start_from"], described)
    _log.info("training starts", extra={"step": trainer.step, "num_steps": trainer.num_steps, "workers": world_size()})
    if damage is not None and metrics is not None:
        metrics.messages.append(Note(damage))
    trainer.fit()
    if metrics is not None and trainer.stopped is not None and not trainer.stopped.finished:
        metrics.stopped(trainer)
    _log.info("training ends", extra={"step": trainer.step})


def _preempted() -> bool:
    return ray.train.get_preemption_info() is not None


@contextmanager
def _together() -> Iterator[None]:
    """Let a mistake that one rank finds end all of them, instead of leaving the others to wait for it."""
    mistake: UserError | None = None
    try:
        yield
    except UserError as error:
        mistake = error
    said: list[Any] = [None] * world_size()
    if world_size() > 1:
        dist.all_gather_object(said, None if mistake is None else str(mistake))
    if mistake is not None:
        raise mistake
    if others := [text for text in said if text]:
        raise UserError(others[0])


def _restore(trainer: Trainer, start_from: Any, described: dict[str, Any]) -> str | None:
    """Continue from the run's own last checkpoint, else from the state the driver read for the user, else start.

    Returns:
        What is to be said of a checkpoint that could not be read, so that the one before was taken.
    """
    checkpoint = ray.train.get_checkpoint()
    if checkpoint is None:
        if start_from is not None:
            trainer.load_state_dict(ray.get(start_from))
        return None
    return take_up(trainer, kept_checkpoints(checkpoint), described)


def take_up(trainer: Trainer, checkpoints: list[Any], described: dict[str, Any]) -> str | None:
    """Continue from the first of a run's Ray Train checkpoints that can be read.

    Returns:
        What is to be said where that is not the first of all.

    Raises:
        UserError: none can be read; says why the first cannot.
    """
    mistake: UserError | None = None
    for kept in checkpoints:
        try:
            with kept.as_directory() as directory:
                trainer.load_state_dict(load_checkpoint(directory, **described))
        except UserError as error:
            mistake = mistake or error
        else:
            return None if mistake is None else f"{mistake}; the one before it, of step {trainer.step}, is used instead"
    assert mistake is not None
    raise mistake


class ReportCheckpoint(Callback):
    """Hands Ray Train a checkpoint every so many steps; a report is a barrier over the workers."""

    def __init__(self, every: int, described: dict[str, Any], metrics: ReportMetrics | None) -> None:
        self.every, self.described, self.metrics = every, described, metrics
        self.last: int | None = None

    def on_step(self, trainer: Trainer) -> None:
        """Report where it is due, and after the last step."""
        if trainer.step % self.every == 0 or trainer.ended:
            self.write(trainer)

    def write(self, trainer: Trainer) -> None:
        """Report a checkpoint now; on all ranks."""
        if self.last == trainer.step:
            return
        self.last = trainer.step
        state = trainer.state_dict()
        if self.metrics is None:
            ray.train.report({"step": trainer.step})
            return
        # first the metrics, then the checkpoint: what is resumed after this step must not find a gap before it
        self.metrics.settle(trainer)
        with tempfile.TemporaryDirectory() as directory:
            save_checkpoint(state, directory, **self.described)
            ray.train.report({"step": trainer.step}, checkpoint=ray.train.Checkpoint.from_directory(directory))
        self.metrics.messages.append(CheckpointWritten(trainer.step))


class ReportMetrics(Callback):
    """Sends rank 0's metrics and progress to the driver, a batch at a time and without waiting.

    One batch is on its way at a time: an actor that serves several callers at once takes calls in any order, and a
    point that arrives after a later one would look like one that a resumed run repeats.
    """

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox
        self.messages: list[Message] = []
        self.sent = 0.0
        self.rho_seconds = 0.0
        self._on_its_way: Any = None

    def on_start(self, trainer: Trainer) -> None:
        """Say where the training starts, after a recovery again."""
        start = Started(trainer.step, trainer.num_steps, world_size())
        messages, self.messages = self.messages, []
        self._send([start, *messages])

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Keep metrics with the time at which they came up."""
        self.messages.append(Metrics(trainer.step, time.time_ns() // 1_000_000, values))

    def on_rho_update(self, trainer: Trainer, update: RhoUpdate) -> None:
        """Add up the time that rho steps take."""
        self.rho_seconds += update.seconds

    def on_step(self, trainer: Trainer) -> None:
        """Send what has gathered, a few times a second."""
        if time.monotonic() - self.sent >= _FLUSH_SECONDS and self._arrived(timeout=0):
            self._send([*self.messages, self._progress(trainer)])
            self.messages = []

    def settle(self, trainer: Trainer) -> None:
        """Send what has gathered and wait until the driver has it on disk, which may be full for a while."""
        messages, self.messages = self.messages, []
        self._send(messages)
        self._arrived(timeout=None)
        ray.get(self.mailbox.settle.remote())

    def on_end(self, trainer: Trainer) -> None:
        """Send the rest and the outcome, and wait until they arrived."""
        self._send([*self.messages, self._progress(trainer), Ended(trainer.step, result_of(trainer))])
        self._arrived(timeout=None)
        self.messages = []

    def stopped(self, trainer: Trainer) -> None:
        """Send the rest and that training ended early, and wait until they arrived."""
        self._send([*self.messages, Stopped(trainer.step)])
        self._arrived(timeout=None)
        self.messages = []

    def _progress(self, trainer: Trainer) -> Progress:
        return Progress(
            trainer.step,
            time.monotonic(),
            examples=trainer.step * trainer.train.batch_size,
            rho_updates=trainer.regularizer.updates if trainer.regularizer else 0,
            rho_seconds=self.rho_seconds,
            num_steps=trainer.num_steps,
            course=trainer.course.describe(trainer) if trainer.course else "",
        )

    def _send(self, messages: list[Message]) -> None:
        self._arrived(timeout=None)
        self.sent = time.monotonic()
        self._on_its_way = self.mailbox.push.remote(messages)

    def _arrived(self, timeout: float | None) -> bool:
        """Say whether the batch on its way has arrived; wait for it, without end if the timeout is None."""
        if self._on_its_way is None:
            return True
        arrived, _ = ray.wait([self._on_its_way], timeout=timeout)
        if arrived:
            ray.get(self._on_its_way)
            self._on_its_way = None
        return bool(arrived)


class ReportDiagnoses(Diagnostics):
    """Sends each failure signature to the driver as it is seen."""

    def __init__(self, mailbox: Any) -> None:
        super().__init__()
        self.mailbox = mailbox

    def report(self, diagnosis: Diagnosis) -> None:
        """Send the diagnosis; the driver shows and records it."""
        self.mailbox.push.remote([Seen(diagnosis)])
