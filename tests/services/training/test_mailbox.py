"""What rank 0 sends arrives once and in order, and is on disk before a checkpoint is reported."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import ray

from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.training.config import Placement
from crossreg.services.training.consumer import MessageConsumer
from crossreg.services.training.line import RayLine
from crossreg.services.training.mailbox import Mailbox
from crossreg.services.training.messages import Message, Metrics, Progress, Started
from crossreg.services.training.progress import Silent
from crossreg.services.training.reporting import ReportMetrics
from crossreg.services.training.runtime import start_ray
from crossreg.services.training.telemetry import Telemetry
from tests.services.disk import Disk

pytestmark = [pytest.mark.ray, pytest.mark.slow]


class Slow(Mailbox.__ray_metadata__.modified_class):  # type: ignore[name-defined, misc]
    """A mailbox that takes every other call later than the one that follows."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = 0

    async def push(self, messages: list[bytes], mistaken: bool) -> None:
        self.calls += 1
        if self.calls % 2:
            await asyncio.sleep(0.2)
        await super().push(messages, mistaken)


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    start_ray(Placement())
    yield
    ray.shutdown()


@pytest.mark.usefixtures("_ray")
def test_metrics_arrive_in_order_whatever_order_calls_are_taken_in(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossreg.services.training.reporting._FLUSH_SECONDS", 0.0)
    mailbox = ray.remote(num_cpus=0, max_concurrency=16)(Slow).remote()
    metrics = ReportMetrics(RayLine(mailbox))
    trainer: Any = SimpleNamespace(step=0, num_steps=60, train=SimpleNamespace(batch_size=4))
    metrics.on_start(trainer)
    for step in range(1, 61):
        trainer.step = step
        metrics.on_metrics(trainer, {"train/loss": float(step)})
        metrics.on_step(trainer)
    metrics._send(metrics.messages)
    assert metrics.line.arrived(timeout=30)
    messages = metrics.line.fetch(0, 0)
    assert [m.step for m in messages if isinstance(m, Metrics)] == list(range(1, 61))
    assert isinstance(messages[0], Started)
    calls = [m.step for m in messages if isinstance(m, Progress)]
    assert len(calls) < 60  # training did not wait for the slow ones


def metrics(first: int, last: int) -> list[Message]:
    return [Metrics(step, 1000 * step, {"loss": 1 / step}) for step in range(first, last + 1)]


@pytest.mark.usefixtures("_ray")
def test_what_a_full_disk_does_not_take_waits_and_a_checkpoint_with_it(tmp_path: Path) -> None:
    disk = Disk(tmp_path / "disk")
    with disk as folder:
        tracker = Tracker.start(
            TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"), experiment="e", run_name="r", params={}, tags={},
            spool_dir=folder / "tracking", system_interval=None,
        )  # fmt: skip
        mailbox = Mailbox.remote()
        line = RayLine(mailbox)
        consumer = MessageConsumer(line, tracker, Silent(), Telemetry(tracker.run_id, "crossreg"))
        consumer.start()
        line.send(metrics(1, 10))
        assert line.arrived(30)
        ray.get(mailbox.settle.remote(), timeout=30)
        disk.full()
        line.send(metrics(11, 200))  # more than the last block of the file has room for
        assert line.arrived(30)
        settled = mailbox.settle.remote()
        assert ray.wait([settled], timeout=3) == ([], [settled])
        assert consumer.full is not None
        disk.empty()
        ray.get(settled, timeout=30)
        consumer.stop()
        assert consumer.full is None
        assert tracker.history()["loss"][0] == list(range(1, 201))
        assert tracker.finish("FINISHED")
