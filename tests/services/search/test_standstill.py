"""A search that waits for what it does not get says so, and goes on once it is there."""

from __future__ import annotations

import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from crossreg.services.search import standstill
from crossreg.services.search.run import run_search
from crossreg.services.search.search import Search
from crossreg.services.search.standstill import StandstillWarning
from tests.services.search.population import SIZE, all_cpus, digits, spec


class Told(logging.Handler):
    """Keeps warnings, and does something at the first."""

    def __init__(self, first: Any) -> None:
        super().__init__()
        self.texts: list[str] = []
        self.first = first

    def emit(self, record: logging.LogRecord) -> None:
        self.texts.append(record.getMessage())
        if len(self.texts) == 1:
            self.first()


@pytest.mark.ray
@pytest.mark.thorough
def test_trials_that_get_no_cpu_say_so_and_train_once_they_do(
    ray_cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    all_cpus()

    @ray_cluster.remote(num_cpus=SIZE)
    class Other:
        def ready(self) -> None: ...

    other = Other.remote()
    ray_cluster.get(other.ready.remote(), timeout=60)
    monkeypatch.setattr(standstill, "FIRST_SECONDS", 1.0)
    told = Told(lambda: ray_cluster.kill(other))
    logging.getLogger(standstill.__name__).addHandler(told)
    try:
        specs = [spec(seed=seed, final_test=False) for seed in range(2)]
        results = run_search(Search(specs), {digits().fingerprint: ray_cluster.put(digits())}, tmp_path)
    finally:
        logging.getLogger(standstill.__name__).removeHandler(told)
    assert [result.complete for result in results] == [True, True]
    assert re.fullmatch(
        rf"no trial has run for 1 s: 2 trials wait for 1 CPU on one machine, of which 0 of the cluster's {SIZE} are "
        "free; it goes on once whoever holds the rest gives it back",
        told.texts[0],
    )
    assert re.fullmatch(r"the search goes on after \d+ s", told.texts[-1])


def trials(*statuses: str) -> list[Any]:
    names = {name: name for name in ("PENDING", "PAUSED", "RUNNING", "TERMINATED")}
    return [SimpleNamespace(status=status, **names) for status in statuses]


def test_it_is_said_again_every_few_minutes_and_only_while_none_runs(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    clock = SimpleNamespace(monotonic=lambda: now)
    monkeypatch.setattr(standstill, "time", clock)
    monkeypatch.setattr(standstill, "_reason", lambda waiting: f"{len(waiting)} wait")
    watching = StandstillWarning()
    heard = []
    for now, statuses in (
        *((float(second), ("PENDING", "PAUSED")) for second in range(500)),
        (500.0, ("RUNNING", "PENDING")),
        *((float(second), ("RUNNING", "PENDING")) for second in range(501, 700)),
        *((float(second), ("TERMINATED", "PENDING")) for second in range(700, 765)),
        *((float(second), ("TERMINATED", "TERMINATED")) for second in range(765, 1000)),
    ):
        watching.on_step_end(0, trials(*statuses))
        heard += [(now, record.getMessage()) for record in caplog.records]
        caplog.clear()
    assert heard == [
        (60, "no trial has run for 60 s: 2 wait"),
        (360, "no trial has run for 360 s: 2 wait"),
        (500, "the search goes on after 500 s"),
        (760, "no trial has run for 60 s: 1 wait"),
        (765, "the search goes on after 65 s"),
    ]
