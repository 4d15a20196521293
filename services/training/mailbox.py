"""From the workers to the driver: a Ray actor that holds messages until the driver has dealt with them.

The driver owns the terminal and the one connection to MLflow. The actor outlives a worker, so what a killed worker
had sent is not lost; and a message is forgotten only when the driver says that it is on disk. It never opens one, so
it needs no PyTorch, which takes seconds to load while all others wait.
"""

from __future__ import annotations

import asyncio

import ray

__all__ = ["Mailbox"]


@ray.remote(num_cpus=0, max_concurrency=16)
class Mailbox:
    """A queue of sealed messages, numbered in the order of their arrival."""

    def __init__(self) -> None:
        self._messages: list[bytes] = []
        self._done = 0  # messages that the driver has dealt with; the queue starts after them
        self._arrived = asyncio.Event()
        self._stopping = self._mistaken = False

    async def push(self, messages: list[bytes], mistaken: bool) -> None:
        """Append messages; say whether one is of a mistake."""
        self._messages.extend(messages)
        self._mistaken |= mistaken
        self._arrived.set()

    async def fetch(self, done: int, timeout: float) -> list[bytes]:
        """Forget the first `done` messages of all and return those after; wait `timeout` seconds for the first."""
        del self._messages[: max(0, done - self._done)]
        self._done = max(done, self._done)
        if not self._messages and timeout > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout)
            except TimeoutError:
                return []
        return list(self._messages)

    async def settle(self) -> None:
        """Wait until the driver has dealt with all that has arrived so far."""
        goal = self._done + len(self._messages)
        while self._done < goal:
            await asyncio.sleep(0.005)

    async def mistaken(self) -> bool:
        """Say whether a worker has found a mistake, with which no training goes on."""
        return self._mistaken

    async def stop(self) -> None:
        """Let the workers know that they should end."""
        self._stopping = True

    async def stopping(self) -> bool:
        """Say whether the workers should end."""
        return self._stopping
