"""From the workers to the driver: a Ray actor that holds messages until the driver fetches them.

The driver owns the terminal and the one connection to MLflow. The actor outlives a worker, so what a killed worker
had sent is not lost.
"""

from __future__ import annotations

import asyncio
from typing import Any

import ray

__all__ = ["Mailbox"]


@ray.remote(num_cpus=0, max_concurrency=16)
class Mailbox:
    """A queue of messages, in the order of their arrival."""

    def __init__(self) -> None:
        self._messages: list[Any] = []
        self._arrived = asyncio.Event()

    async def push(self, messages: list[Any]) -> None:
        """Append messages."""
        self._messages.extend(messages)
        self._arrived.set()

    async def drain(self, timeout: float) -> list[Any]:
        """Return and forget all messages; wait up to `timeout` seconds for the first."""
        if not self._messages and timeout > 0:
            self._arrived.clear()
            try:
                await asyncio.wait_for(self._arrived.wait(), timeout)
            except TimeoutError:
                return []
        messages, self._messages = self._messages, []
        return messages
