"""The line from where a training runs to its driver: messages one way, the wish to stop the other.

A training in Ray's workers has a mailbox between, an actor that outlives a worker; one in the driver's own process has
a queue.
"""

from __future__ import annotations

import threading
from abc import ABC, abstractmethod
from typing import Any

from crossreg.services.training.messages import Message, Mistake

__all__ = ["Line", "LocalLine", "RayLine"]


class Line(ABC):
    """What a training tells its driver, and what the driver asks of it."""

    @abstractmethod
    def send(self, messages: list[Message]) -> None:
        """Send messages, after those before have arrived; does not wait for them to arrive."""

    @abstractmethod
    def arrived(self, timeout: float | None) -> bool:
        """Say whether what was sent has arrived; wait for it so many seconds, without end if None."""

    @abstractmethod
    def settle(self) -> None:
        """Wait until the driver has on disk all that has arrived; the disk may be full for a while."""

    @abstractmethod
    def stop_wanted(self) -> bool:
        """Say whether the driver wants the training to end; never waits."""

    @abstractmethod
    def fetch(self, done: int, timeout: float) -> list[Message]:
        """In the driver: forget the first `done` messages of all and return those after; wait so long for the first."""

    @abstractmethod
    def ask_to_stop(self) -> None:
        """In the driver: let the training know that it should end."""


class RayLine(Line):
    """Through a mailbox; see `crossreg.services.training.mailbox`.

    One batch is on its way at a time: an actor that serves several callers at once takes calls in any order, and a
    point that arrives after a later one would look like one that a resumed run repeats.

    Args:
        mailbox: handle of the actor.
    """

    def __init__(self, mailbox: Any) -> None:
        self.mailbox = mailbox
        self._on_its_way: Any = None
        self._asked: Any = None

    def send(self, messages: list[Message]) -> None:
        """Send messages; see `Line`."""
        from ray import cloudpickle

        self.arrived(timeout=None)
        sealed = [cloudpickle.dumps(message) for message in messages]
        mistaken = any(isinstance(message, Mistake) for message in messages)
        self._on_its_way = self.mailbox.push.remote(sealed, mistaken)

    def arrived(self, timeout: float | None) -> bool:
        """Say whether what was sent has arrived; see `Line`."""
        import ray

        if self._on_its_way is None:
            return True
        arrived, _ = ray.wait([self._on_its_way], timeout=timeout)
        if arrived:
            ray.get(self._on_its_way)
            self._on_its_way = None
        return bool(arrived)

    def settle(self) -> None:
        """Wait until the driver has all on disk; see `Line`."""
        import ray

        ray.get(self.mailbox.settle.remote())

    def stop_wanted(self) -> bool:
        """Return the mailbox's last answer, and ask it again."""
        import ray

        if self._asked is None:
            self._asked = self.mailbox.stopping.remote()
            return False
        arrived, _ = ray.wait([self._asked], timeout=0)
        if not arrived:
            return False
        answer, self._asked = bool(ray.get(self._asked)), self.mailbox.stopping.remote()
        return answer

    def fetch(self, done: int, timeout: float) -> list[Message]:
        """Return messages; see `Line`."""
        import ray
        from ray import cloudpickle

        return [cloudpickle.loads(one) for one in ray.get(self.mailbox.fetch.remote(done, timeout), timeout=10)]

    def ask_to_stop(self) -> None:
        """Let the workers know; see `Line`."""
        import ray

        ray.get(self.mailbox.stop.remote(), timeout=10)

    def mistaken(self) -> bool:
        """Say whether a worker has found a mistake, with which no training goes on."""
        import ray

        return bool(ray.get(self.mailbox.mistaken.remote()))

    def tell(self, mistake: str) -> None:
        """Tell the driver of a mistake, and wait until it has arrived."""
        self.send([Mistake(mistake)])
        self.arrived(timeout=None)


class LocalLine(Line):
    """Within one process, between two threads."""

    def __init__(self) -> None:
        self._messages: list[Message] = []
        self._done = 0
        self._changed = threading.Condition()
        self._stopping = threading.Event()

    def send(self, messages: list[Message]) -> None:
        """Send messages; see `Line`."""
        with self._changed:
            self._messages.extend(messages)
            self._changed.notify_all()

    def arrived(self, timeout: float | None) -> bool:
        """They have."""
        return True

    def settle(self) -> None:
        """Wait until the driver has all on disk; see `Line`."""
        with self._changed:
            goal = self._done + len(self._messages)
            self._changed.wait_for(lambda: self._done >= goal)

    def stop_wanted(self) -> bool:
        """Say whether the driver wants the training to end."""
        return self._stopping.is_set()

    def fetch(self, done: int, timeout: float) -> list[Message]:
        """Return messages; see `Line`."""
        with self._changed:
            del self._messages[: max(0, done - self._done)]
            self._done = max(done, self._done)
            self._changed.notify_all()
            if not self._messages:
                self._changed.wait(timeout)
            return list(self._messages)

    def ask_to_stop(self) -> None:
        """Let the training know; see `Line`."""
        self._stopping.set()
