"""Stopping a training on request, at the same step on every rank; it goes on from a last checkpoint."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

import torch
import torch.distributed as dist

from crossreg.core.distributed import rank, world_size
from crossreg.services.training.line import Line
from crossreg.training.callback import Callback, Stop
from crossreg.training.trainer import Trainer

__all__ = ["StopOnRequest", "on_sigterm"]

_LOOK_EVERY = 0.5  # seconds


class StopOnRequest(Callback):
    """Looks a few times a second whether the driver wants the training to end, or a node is about to go away.

    Ranks have to do this at the same step. Rank 0 looks, and tells the others with the number of steps until they
    look again, so that it costs one small message every half second, however long a step takes.

    Args:
        line: tells rank 0 whether to stop.
        checkpoint: reports a checkpoint; called on every rank.
        preempted: says whether a node is about to go away, the same on all ranks; None where nodes stay.
    """

    def __init__(
        self, line: Line, checkpoint: Callable[[Trainer], None], preempted: Callable[[], bool] | None = None
    ) -> None:
        self._line, self._checkpoint, self._preempted = line, checkpoint, preempted
        self._leaving = self._looking = False

    def on_start(self, trainer: Trainer) -> None:
        """Look at the first step."""
        self._looked_at, self._looked, self._next = trainer.step, time.monotonic(), trainer.step + 1

    def should_stop(self, trainer: Trainer) -> Stop | None:
        """Look where it is due, and interrupt where the driver asks for it."""
        self._looking = trainer.step >= self._next
        if not self._looking:
            return None
        stop, steps = self._agree(trainer.step)
        self._next = trainer.step + steps
        return Stop("the driver asked for it", finished=False) if stop else None

    def on_step(self, trainer: Trainer) -> None:
        """Write a checkpoint, once, where this node is about to go away."""
        if self._looking and self._preempted is not None and not self._leaving and self._preempted():
            self._leaving = True
            self._checkpoint(trainer)

    def _agree(self, step: int) -> tuple[bool, int]:
        """Return what rank 0 knows: whether to stop, and after how many steps to look again."""
        now = time.monotonic()
        rate = (step - self._looked_at) / max(now - self._looked, 1e-3)
        self._looked_at, self._looked = step, now
        told = torch.zeros(2, dtype=torch.int64)
        if rank() == 0:
            told = torch.tensor([self._line.stop_wanted(), min(max(1, round(rate * _LOOK_EVERY)), 1000)])
        if world_size() > 1:
            device = "cuda" if dist.get_backend() == "nccl" else "cpu"
            told = told.to(device)
            dist.broadcast(told, 0)
        stop, steps = told.tolist()
        return bool(stop), int(steps)


@contextmanager
def on_sigterm(stop: Callable[[], None]) -> Iterator[None]:
    """Call `stop` at the first SIGTERM within the block, and raise `KeyboardInterrupt` at the next.

    Only in the main thread; elsewhere signals are not ours to take.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def handle(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise KeyboardInterrupt
        asked = True
        stop()

    before = signal.signal(signal.SIGTERM, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)
