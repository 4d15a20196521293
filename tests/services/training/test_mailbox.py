"""What rank 0 sends arrives once and in order."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from services.training.config import Placement
from services.training.mailbox import Mailbox
from services.training.runtime import start_ray
from services.training.worker import ReportMetrics

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Slow(Mailbox.__ray_metadata__.modified_class):  # type: ignore[name-defined, misc]
    """A mailbox that takes every other call later than the one that follows."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def push(self, messages: list[Any]) -> None:
        self.calls += 1
        if self.calls % 2:
            await asyncio.sleep(0.2)
        await super().push(messages)


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    start_ray(Placement())
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_ray")
def test_metrics_arrive_in_order_whatever_order_calls_are_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("services.training.worker._FLUSH_SECONDS", 0.0)
    mailbox = ray.remote(num_cpus=0, max_concurrency=16)(Slow).remote()
    metrics = ReportMetrics(mailbox)
    trainer: Any = SimpleNamespace(step=0, num_steps=60, train=SimpleNamespace(batch_size=4))
    metrics.on_start(trainer)
    for step in range(1, 61):
        trainer.step = step
        metrics.on_metrics(trainer, {"train/loss": float(step)})
        metrics.on_step(trainer)
    metrics._send(metrics.messages)
    metrics._arrived(timeout=None)
    messages = ray.get(mailbox.fetch.remote(0, 0))
    assert [m["step"] for m in messages if m["kind"] == "metrics"] == list(range(1, 61))
    assert messages[0]["kind"] == "start"
    calls = [m["step"] for m in messages if m["kind"] == "progress"]
    assert len(calls) < 60  # training did not wait for the slow ones
