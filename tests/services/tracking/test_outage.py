"""The server and the client are killed for real; every point must be in the store exactly once."""

import signal
import subprocess
import sys
import time

import pytest

from crossreg.services.tracking import saved_run, store, sync
from tests.waiting import wait_for

KEYS = [f"regularizers/noise/{index:02d}_conv" for index in range(10)]


def value(key: str, step: int) -> float:
    return step + KEYS.index(key) / 100


def record(tracker, steps) -> None:
    for step in steps:
        tracker.record({key: value(key, step) for key in KEYS}, step)


def check(rows, run_id: str, steps: int) -> None:
    for key in KEYS:
        assert rows(run_id, key) == [(step, value(key, step)) for step in range(steps)]


@pytest.mark.slow
def test_a_server_that_dies_and_returns_loses_and_doubles_nothing(server, begin, rows, caplog, tmp_path):
    client = store.connect(server.url)
    client.create_experiment("outage", artifact_location="mlflow-artifacts:/outage")  # sent through the server
    tracker = begin(uri=server.url, experiment="outage")
    assert tracker.url == (
        f"{server.url}/#/experiments/{tracker.experiment_id}/runs/{tracker.run_id}?workflowType=machine_learning"
    )
    ends_meanwhile = begin(uri=server.url, spool_dir=tmp_path / "second")
    record(tracker, range(200))
    record(ends_meanwhile, range(10))
    time.sleep(1.2)  # the upload of the first part is under way or done when the server dies
    record(tracker, range(200, 300))
    server.kill()

    started = time.monotonic()
    record(tracker, range(300, 600))
    tracker.set_tags({"during": "outage"})
    tracker.artifact_json({"a": 1}, "a.json")
    record(ends_meanwhile, range(10, 50))
    assert time.monotonic() - started < 10, "recording waited for the server"
    assert not ends_meanwhile.finish("FINISHED", timeout=2)
    assert time.monotonic() - started < 20, "closing waited for the server"
    assert "MLflow does not take this run's records" in caplog.text
    assert f"crossreg sync {tmp_path / 'second'}" in caplog.text

    # it sends every ten seconds at the least
    wait_for(lambda: f"they wait in {tmp_path / 'spool'} (" in caplog.text, "what cannot be sent", 40)
    server.start()
    record(tracker, range(600, 700))
    assert tracker.finish("FINISHED", timeout=40)
    assert "MLflow answers again" in caplog.text
    check(rows, tracker.run_id, 700)
    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.tags["during"] == "outage"
    assert [item.path for item in client.list_artifacts(tracker.run_id)] == ["a.json"]

    assert client.get_run(ends_meanwhile.run_id).info.status == "RUNNING"
    report = sync(tmp_path / "second")
    assert report.complete, report
    assert report.run_id == ends_meanwhile.run_id
    assert sync(tmp_path / "second").bytes_sent == 0
    check(rows, ends_meanwhile.run_id, 50)
    assert client.get_run(ends_meanwhile.run_id).info.status == "FINISHED"


CLIENT = """
import sys, time
from pathlib import Path
from crossreg.services.tracking import Tracker, TrackingConfig, saved_run
uri, folder, start = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3])
saved = saved_run(folder)
tracker = Tracker.start(TrackingConfig(uri=uri), experiment="killed client", run_name="r", params={}, tags={},
    spool_dir=folder, resume_run_id=saved.run_id if saved else None, system_interval=None)
for step in range(start, 100000):
    tracker.record({f"regularizers/noise/{i:02d}_conv": step + i / 100 for i in range(10)}, step)
    print(step, flush=True)
    time.sleep(0.002)
"""


def steps(printed):
    """Return the steps that a client has printed as whole lines; -1 before the first."""
    return [-1, *map(int, printed.read_text().split("\n")[:-1])]


@pytest.mark.slow
def test_a_client_that_is_killed_and_started_again_loses_and_doubles_nothing(server, begin, rows, tmp_path):
    folder, last = tmp_path / "spool", -1
    for until in (600, 1200):
        # Training goes on from a checkpoint 100 steps back and runs those steps again.
        command = [sys.executable, "-c", CLIENT, server.url, str(folder), str(max(0, last - 100))]
        printed = tmp_path / f"until {until}"
        with printed.open("w") as out:
            process = subprocess.Popen(command, stdout=out)
        try:
            wait_for(lambda at=printed, goal=until: steps(at)[-1] >= goal, f"step {until}", every=0.01, process=process)
        finally:
            process.send_signal(signal.SIGKILL)
            process.wait(20)
        last = steps(printed)[-1]
        with (folder / "spool.jsonl").open("ab") as spool:
            spool.write(b'{"metrics":{"regularizers/noise/00_conv":99999')  # killed in the middle of a line
    saved = saved_run(folder)
    assert saved is not None
    tracker = begin(uri=server.url, resume_run_id=saved.run_id)
    record(tracker, range(last - 100, last + 200))
    assert tracker.finish("FINISHED", timeout=40)
    check(rows, saved.run_id, last + 200)
