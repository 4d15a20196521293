"""A training that tells its driver what happens: metrics, progress, checkpoints, diagnoses, the outcome.

The same in a Ray Train worker and in the driver's own process; which of them it is, the line says, and who keeps the
checkpoints.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
import torch.distributed as dist

from crossreg.core.distributed import rank, world_size
from crossreg.core.errors import UserError
from crossreg.regularizer import RhoUpdate
from crossreg.services.data import Dataset
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.line import Line
from crossreg.services.training.messages import (
    CheckpointWritten,
    Ended,
    Message,
    Metrics,
    Note,
    Progress,
    Seen,
    Started,
    Stopped,
)
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.result import result_of
from crossreg.services.training.stopping import StopOnRequest
from crossreg.training.callback import Callback
from crossreg.training.diagnostics import Diagnosis, Diagnostics
from crossreg.training.trainer import Trainer

__all__ = ["Keep", "ReportCheckpoint", "ReportDiagnoses", "ReportMetrics", "run_training"]

_log = logging.getLogger(__name__)

_FLUSH_SECONDS = 0.3

Keep = Callable[[int, dict[str, Any] | None], None]
"""Keeps the checkpoint of a step; the state is None on ranks but the first."""


def run_training(
    config: ResolvedConfig,
    data: Dataset,
    device: torch.device,
    line: Line,
    *,
    keep: Keep,
    restore: Callable[[Trainer], str | None],
    checkpoint_every: int,
    watch: Sequence[Callback] = (),
    preempted: Callable[[], bool] | None = None,
) -> None:
    """Train on this process's rank; rank 0 tells the driver what happens.

    Args:
        config: what to train.
        data: on what.
        device: of this rank.
        line: to the driver.
        keep: of checkpoints, called on every rank.
        restore: goes on from a checkpoint, if there is one; returns what is to be said of it.
        checkpoint_every: steps.
        watch: callbacks that come before all others but those that tell the driver.
        preempted: see `StopOnRequest`.

    Raises:
        UserError: a mistake that only shows here, on all ranks.
    """
    metrics = ReportMetrics(line) if rank() == 0 else None
    checkpoints = ReportCheckpoint(checkpoint_every, keep, metrics)
    callbacks = [*watch, checkpoints, StopOnRequest(line, checkpoints.write, preempted)]
    if metrics is not None:
        callbacks[:0] = [metrics, ReportDiagnoses(line)]
    with _together():
        trainer = build_trainer(config, data, device, callbacks)
        damage = restore(trainer)
    _log.info("training starts", extra={"step": trainer.step, "num_steps": trainer.num_steps, "workers": world_size()})
    if damage is not None and metrics is not None:
        metrics.messages.append(Note(damage))
    trainer.fit()
    if metrics is not None and trainer.stopped is not None and not trainer.stopped.finished:
        metrics.stopped(trainer)
    _log.info("training ends", extra={"step": trainer.step})


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


class ReportCheckpoint(Callback):
    """Hands over a checkpoint every so many steps.

    Args:
        every: steps.
        keep: called on every rank.
        metrics: of the first rank; None on the others.
    """

    def __init__(self, every: int, keep: Keep, metrics: ReportMetrics | None) -> None:
        self.every, self.keep, self.metrics = every, keep, metrics
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
            self.keep(trainer.step, None)
            return
        # first the metrics, then the checkpoint: what is resumed after this step must not find a gap before it
        self.metrics.settle(trainer)
        self.keep(trainer.step, state)
        self.metrics.messages.append(CheckpointWritten(trainer.step))


class ReportMetrics(Callback):
    """Sends rank 0's metrics and progress to the driver, a batch at a time and without waiting.

    Args:
        line: to the driver.
    """

    def __init__(self, line: Line) -> None:
        self.line = line
        self.messages: list[Message] = []
        self.sent = 0.0
        self.rho_seconds = 0.0

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
        if time.monotonic() - self.sent >= _FLUSH_SECONDS and self.line.arrived(timeout=0):
            self._send([*self.messages, self._progress(trainer)])
            self.messages = []

    def settle(self, trainer: Trainer) -> None:
        """Send what has gathered and wait until the driver has it on disk, which may be full for a while."""
        messages, self.messages = self.messages, []
        self._send(messages)
        self.line.arrived(timeout=None)
        self.line.settle()

    def on_end(self, trainer: Trainer) -> None:
        """Send the rest and the outcome, and wait until they arrived."""
        self._send([*self.messages, self._progress(trainer), Ended(trainer.step, result_of(trainer))])
        self.line.arrived(timeout=None)
        self.messages = []

    def stopped(self, trainer: Trainer) -> None:
        """Send the rest and that training ended early, and wait until they arrived."""
        self._send([*self.messages, Stopped(trainer.step)])
        self.line.arrived(timeout=None)
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
        self.sent = time.monotonic()
        self.line.send(messages)


class ReportDiagnoses(Diagnostics):
    """Sends each failure signature to the driver as it is seen."""

    def __init__(self, line: Line) -> None:
        super().__init__()
        self.line = line

    def report(self, diagnosis: Diagnosis) -> None:
        """Send the diagnosis; the driver shows and records it."""
        self.line.send([Seen(diagnosis)])
