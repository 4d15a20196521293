"""A worker that no longer gets anywhere ends itself, so that Ray Train replaces it."""

from __future__ import annotations

import faulthandler
import time

from crossreg.training.callback import Callback
from crossreg.training.trainer import Trainer

__all__ = ["Watchdog"]


class Watchdog(Callback):
    """Ends this process when a step takes too long, with every thread's traceback in the worker's log.

    That holds also where native code hangs with Python's lock held. What it cannot see, a process that is stopped from
    outside, Ray Train's health check sees after the same time.

    Args:
        timeout: seconds without a step.
    """

    def __init__(self, timeout: float) -> None:
        self.timeout, self._fed = timeout, -1.0

    def on_start(self, trainer: Trainer) -> None:
        """Begin to watch."""
        self._feed()

    def on_step(self, trainer: Trainer) -> None:
        """Begin anew, at most once a second."""
        if time.monotonic() - self._fed >= min(1.0, self.timeout / 10):
            self._feed()

    def on_end(self, trainer: Trainer) -> None:
        """Watch no more."""
        faulthandler.cancel_dump_traceback_later()

    def _feed(self) -> None:
        self._fed = time.monotonic()
        # a worker's sys.stderr is Ray's own and has no descriptor
        faulthandler.dump_traceback_later(self.timeout, exit=True, file=2)
