"""One training on a cluster, seen by Prometheus and in the logs, against what MLflow recorded."""

from __future__ import annotations

import contextlib
import json
import logging
import os
import secrets
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass, field
from io import StringIO
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import yaml
from prometheus_client.parser import text_string_to_metric_families

from crossreg.services.logs import bind
from crossreg.services.tracking.ui import free_port
from crossreg.services.training import telemetry
from crossreg.services.training.messages import Progress
from crossreg.services.training.telemetry import Telemetry
from tests.services.training.conftest import ROOT, SETTINGS
from tests.waiting import wait_for

PREFIX = "ray_crossreg_"
STEPS, EVERY = SETTINGS["steps"], SETTINGS["placement"]["checkpoint_every"]
CHECKPOINTS = range(EVERY, STEPS + 1, EVERY)


@dataclass
class Seen:
    """What a training left, and every scrape while it ran and until its metrics were gone."""

    folder: Path
    result: dict[str, Any] = field(default_factory=dict)
    scrapes: list[dict[str, float]] = field(default_factory=list)
    labels: set[tuple[str, str]] = field(default_factory=set)

    @property
    def run(self) -> Any:
        client = mlflow.MlflowClient(f"sqlite:///{self.folder / 'mlflow.db'}")
        return client.get_run(self.result["run_id"])

    def log(self) -> list[dict[str, Any]]:
        return parsed(self.folder / "stderr")

    def scrape(self, discovery: Path) -> dict[str, float]:
        """Return the metrics of the targets that Ray lists for Prometheus."""
        found: dict[str, float] = {}
        targets = [target for group in json.loads(discovery.read_text()) for target in group["targets"]]
        for target in targets:
            try:
                with urllib.request.urlopen(f"http://{target}/metrics", timeout=20) as answer:
                    text = answer.read().decode()
            except OSError:  # Ray lists what is to come, too
                continue
            for family in text_string_to_metric_families(text):
                for sample in family.samples:
                    if sample.name.startswith(PREFIX):
                        assert family.type == "gauge", sample
                        assert family.documentation == telemetry._GAUGES[sample.name.removeprefix(PREFIX)]
                        assert sample.name not in found, "two series of one metric"
                        found[sample.name.removeprefix(PREFIX)] = sample.value
                        self.labels.add((sample.labels["run_id"], sample.labels["method"]))
        return found


def parsed(path: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in path.read_text().splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def head(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[dict[str, str], Path]]:
    """A head node: the environment of those who use it, and its folder."""
    folder = tmp_path_factory.mktemp("r")  # short: Ray's sockets lie in it
    port = free_port("127.0.0.1")
    (folder / "token").write_text(secrets.token_hex(32))
    access = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(folder / "token")}
    command = [
        str(Path(sys.executable).with_name("ray")), "start", "--head", "--block", "--disable-usage-stats",
        f"--port={port}", "--node-ip-address=127.0.0.1", "--dashboard-host=127.0.0.1", "--num-cpus=2",
        f"--dashboard-port={free_port('127.0.0.1')}", f"--metrics-export-port={free_port('127.0.0.1')}",
        f"--temp-dir={folder}", f"--ray-client-server-port={free_port('127.0.0.1')}",
        '--system-config={"metrics_report_interval_ms": 3000}',  # ten seconds by default
    ]  # fmt: skip
    with (folder / "said").open("w") as said:
        process = subprocess.Popen(
            command, env={**os.environ, **access}, stdout=said, stderr=said, start_new_session=True
        )
    try:
        discovery = folder / "prom_metrics_service_discovery.json"
        wait_for(discovery.exists, "word of Ray where its metrics are", process=process, said=folder / "said")
        yield {**access, "RAY_ADDRESS": f"127.0.0.1:{port}"}, folder
    finally:
        with contextlib.suppress(psutil.Error):
            tree = psutil.Process(process.pid).children(recursive=True)
            for part in (process, *tree):  # asked to stop, they take half a minute
                with contextlib.suppress(psutil.Error):
                    part.kill()
            psutil.wait_procs(tree, timeout=30)
        process.wait(30)


@pytest.fixture(scope="module")
def seen(head: tuple[dict[str, str], Path], tmp_path_factory: pytest.TempPathFactory) -> Seen:
    """A training, scraped until its metrics are gone."""
    access, ray_folder = head
    seen = Seen(tmp_path_factory.mktemp("seen"))
    (seen.folder / "config.yaml").write_text(yaml.safe_dump(SETTINGS))
    environment = {**os.environ, **access, "PYTHONPATH": str(ROOT), "RAY_LOGGING_CONFIG_ENCODING": "JSON"}
    environment.pop("MLFLOW_TRACKING_URI", None)
    discovery = ray_folder / "prom_metrics_service_discovery.json"
    with (seen.folder / "stdout").open("w") as stdout, (seen.folder / "stderr").open("w") as stderr:
        process = subprocess.Popen(
            [sys.executable, "-m", "crossreg.jobs.train", "--json", "--config", "config.yaml"],
            cwd=seen.folder, env=environment, stdout=stdout, stderr=stderr,
        )  # fmt: skip

        def over() -> bool:
            seen.scrapes.append(seen.scrape(discovery))
            return process.poll() is not None and not any(seen.scrapes[-5:])

        try:
            wait_for(over, "end of the training and of its metrics", 240, every=0.3, said=seen.folder / "stderr")
        finally:
            process.kill()
    assert process.returncode == 0, (seen.folder / "stderr").read_text()[-3000:]
    seen.result = json.loads((seen.folder / "stdout").read_text())
    return seen


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_prometheus_sees_what_mlflow_recorded(seen: Seen) -> None:
    recorded = seen.run.data.metrics
    assert seen.labels == {(seen.result["run_id"], "crossreg")}
    shown = [scrape for scrape in seen.scrapes if scrape]
    last = shown[-1]
    assert set(last) == set(telemetry._GAUGES)
    sigma = sorted(value for key, value in recorded.items() if key.startswith("regularizers/noise/"))
    assert len(sigma) == 2
    exact = {
        "step": STEPS, "num_steps": STEPS, "train_loss": recorded["train/loss"], "reg_loss": recorded["reg/loss"],
        "sigma_min": sigma[0], "sigma_max": sigma[1], "sigma_median": sum(sigma) / 2,
        "rho_updates": STEPS // SETTINGS["rho"]["interval"], "checkpoints": len(CHECKPOINTS), "checkpoint_step": STEPS,
        "recoveries": 0,
    }  # fmt: skip
    assert {name: last[name] for name in exact} == pytest.approx(exact, rel=1e-6)
    # no more time than the training as a whole, no more examples than there were
    seconds = recorded["usage/worker_seconds"] / 2
    assert 0 < last["rho_update_seconds"] * last["rho_updates"] < seconds
    assert any(scrape.get("examples_per_second", 0) > 0 for scrape in shown)
    steps = [scrape["step"] for scrape in shown]
    assert steps == sorted(steps)


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.faults
def test_every_line_of_the_log_carries_run_and_job(seen: Seen, head: tuple[dict[str, str], Path]) -> None:
    run_id = seen.result["run_id"]
    text = (seen.folder / "stderr").read_text()
    assert all(line.startswith("{") for line in text.splitlines()), text
    own = [line for line in seen.log() if line.get("logger", "").startswith(("crossreg.", "services.", "jobs."))]
    events = [line["message"] for line in own]
    assert events == ["run started", *["checkpoint reported"] * len(CHECKPOINTS), "run ended"]
    workers = [
        line for path in (head[1] / "session_latest" / "logs" / "train").glob("*app-worker*") for line in parsed(path)
    ]
    trained = [line for line in workers if line.get("logger") == "crossreg.services.training.reporting"]
    assert sorted((line["world_rank"], line["message"]) for line in trained) == [
        (0, "training ends"), (0, "training starts"), (1, "training ends"), (1, "training starts")
    ]  # fmt: skip
    (job,) = {line["job_id"] for line in own + trained}
    assert {line["run_id"] for line in own + trained} == {run_id}
    assert all({"asctime", "levelname", "message"} <= line.keys() for line in own + trained)
    assert len(job) == 8
    assert own[0]["workers"] == 2
    assert own[0]["data_fingerprint"] == seen.run.data.tags["data.fingerprint"]
    assert [line["step"] for line in own[1:-1]] == list(CHECKPOINTS)
    assert own[-1]["status"] == "FINISHED"


def test_a_log_line_holds_no_secret() -> None:
    from ray._common.formatters import JSONFormatter

    stream = StringIO()
    handler = logging.StreamHandler(stream)
    handler.setFormatter(JSONFormatter())
    uri = "postgresql://me:hunter2@db/mlflow"
    logging.getLogger().addHandler(handler)
    try:
        bind("an earlier run")
        bind("abc")
        log = logging.getLogger("crossreg.services.training.driver")
        log.error("no answer from %s", uri, extra={"store": uri})
        try:
            raise ConnectionError(uri)
        except ConnectionError:
            log.exception("failed")
        # a mistake of the caller's does not stop him
        handler.handle(logging.LogRecord("services", logging.ERROR, "", 1, "%s of %s", (1,), None))
    finally:
        logging.getLogger().removeHandler(handler)
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    assert "hunter2" not in stream.getvalue()
    assert {(line["run_id"], line["logger"], line["levelname"]) for line in lines} == {
        ("abc", "crossreg.services.training.driver", "ERROR")
    }
    assert lines[0]["store"] == "postgresql://me:***@db/mlflow"
    assert "ConnectionError" in lines[1]["exc_text"]


def test_throughput_is_that_of_the_last_ten_seconds(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = 100.0
    monkeypatch.setattr(telemetry.time, "monotonic", lambda: clock)
    run = Telemetry("abc", "crossreg")
    run.start(0, 1000, 0)
    rates = []
    for second in range(60):
        clock = 100.0 + second
        done = 64 * min(second, 30)  # a step a second, then none
        run.progress(Progress(done // 64, clock, done, done // 640, done // 640 * 0.1))
        run.export()
        rates.append(run._values.get("examples_per_second"))
    assert rates[0] is None
    assert rates[1:31] == pytest.approx([64] * 30)
    assert rates[35] == pytest.approx(32)
    assert rates[-1] == 0
    assert run._values["rho_update_seconds"] == pytest.approx(0.1)


def test_a_metric_that_cannot_be_set_is_said_once_and_stops_nothing(caplog: pytest.LogCaptureFixture) -> None:
    run = Telemetry("abc", "crossreg")
    run.metrics(1, {"train/loss": "not a number"})  # type: ignore[dict-item]
    run.export(last=True)
    run.export(last=True)
    assert [record.levelname for record in caplog.records] == ["WARNING"]
