"""A real MLflow server and real SQLite stores for these tests; nothing leaves this machine."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from crossreg.services.tracking import Tracker, TrackingConfig, store
from crossreg.services.tracking.ui import free_port, server_command, wait_until_it_answers


@pytest.fixture(autouse=True)
def _no_ambient_store(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("MLFLOW_TRACKING_URI", "MLFLOW_EXPERIMENT_NAME", "MLFLOW_RUN_ID"):
        monkeypatch.delenv(name, raising=False)
    # as in an activated environment, where `crossreg` is a command
    monkeypatch.setenv("PATH", f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}")


class Server:
    """`mlflow server` on loopback over one SQLite file, that can be killed and started again on its port."""

    def __init__(self, uri: str) -> None:
        self.port = free_port("127.0.0.1")
        self.url = f"http://127.0.0.1:{self.port}"
        self._uri = uri
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command, environment = server_command(self._uri, self.port)
        self._process = subprocess.Popen(
            command,
            env=environment,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        assert wait_until_it_answers(self._process, f"{self.url}/health"), "the MLflow server did not start"

    def kill(self) -> None:
        if self._process is not None:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait(timeout=20)
            self._process = None


@pytest.fixture(scope="session")
def store_uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """An initialised SQLite store; tests keep apart by their experiment names."""
    uri = f"sqlite:///{tmp_path_factory.mktemp('store') / 'mlflow.db'}"
    store.connect(uri)
    return uri


@pytest.fixture(scope="session")
def server(store_uri: str) -> Iterator[Server]:
    server = Server(store_uri)
    server.start()
    yield server
    server.kill()


@pytest.fixture
def client(store_uri: str) -> Any:
    """A stock client, as a user of MLflow would have it."""
    return store.quiet_mlflow().MlflowClient(store_uri, registry_uri=store_uri)


@pytest.fixture
def begin(store_uri: str, tmp_path: Path, request: pytest.FixtureRequest) -> Iterator[Callable[..., Tracker]]:
    """Start trackers that are ended after the test, whatever happens in it."""
    started: list[Tracker] = []

    def start(uri: str = store_uri, spool_dir: Path = tmp_path / "spool", **options: Any) -> Tracker:
        defaults: dict[str, Any] = {
            "experiment": request.node.name, "run_name": "crossreg-s0", "params": {}, "tags": {},
            "system_interval": None,
        }  # fmt: skip
        tracker = Tracker.start(TrackingConfig(uri=uri), spool_dir=spool_dir, **{**defaults, **options})
        started.append(tracker)
        return tracker

    yield start
    for tracker in started:
        tracker.finish("KILLED", timeout=0)


@pytest.fixture
def rows(client: Any) -> Callable[[str, str], list[tuple[int, float]]]:
    """What the store holds of a run's metric: every row as (step, value), in order of steps."""

    def read(run_id: str, key: str) -> list[tuple[int, float]]:
        return sorted((point.step, point.value) for point in client.get_metric_history(run_id, key))

    return read
