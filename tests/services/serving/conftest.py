"""A trained model in a real store, and the service as a user starts it."""

from __future__ import annotations

import contextlib
import json
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pandas as pd
import psutil
import pytest
import torch

from crossreg.prediction.export import Exported, load_exported
from crossreg.services.data import load_data
from crossreg.services.serving.promotion import Promotion, promote
from crossreg.services.tracking import TrackingConfig, store
from crossreg.services.tracking.model import log_model
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.publish import export_training
from crossreg.services.training.resolve import resolve
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]


class Store:
    """An SQLite store with models that were trained here."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.uri = f"sqlite:///{folder / 'mlflow.db'}"
        self.tracking = TrackingConfig(uri=self.uri)
        self.client = store.connect(self.uri)
        self.experiment = store.get_or_create_experiment(self.client, self.uri, "serving")

    def train(self, data: str = "digits", seed: int = 0, **options: Any) -> tuple[str, Path]:
        """Train a small network; return its run and the folder of its export."""
        config = TrainConfig.model_validate(
            {
                "model": "mlp",
                "model_options": {"hidden": 24, "depth": 2},
                "data": {"name": data, **options},
                "optimizer": {"schedule": "cosine"},
                "steps": 80,
                "batch_size": 64,
                "rho": {"interval": 10},
                "regularizers": {"noise": {"start": 0.4}, "temperature": None},
                "evaluations": 1,
                "seed": seed,
            }
        )
        loaded = load_data(config.data)
        trainer = build_trainer(resolve(config, loaded), loaded, torch.device("cpu"))
        trainer.fit()
        folder = self.folder / f"{Path(data).stem}-{seed}"
        export_training(resolve(config, loaded), loaded, trainer.model, folder)
        return self.log(folder), folder

    def log(self, folder: Path, change: Any = None) -> str:
        """Log an exported model as a run; `change` then edits the stored artifacts' folder."""
        run_id = self.client.create_run(self.experiment).info.run_id
        about = json.loads((folder / "model.json").read_text("utf-8"))
        example: Any = np.zeros((2, *about["input_shape"]), np.float32)
        if about["inputs"]["kind"] == "table":
            example = pd.DataFrame({column["name"]: [None, None] for column in about["inputs"]["columns"]})
        uri = log_model(self.client, self.experiment, run_id, folder, example, "model")
        self.client.set_terminated(run_id)
        if change is not None:
            model = self.client.get_logged_model(uri.removeprefix("models:/"))
            change(Path(model.artifact_location.removeprefix("file://")))
        return str(run_id)

    def promote(self, run_id: str, name: str = "digits") -> Promotion:
        return promote(self.tracking, run_id, name)


class Service:
    """`crossreg serve` in a process of its own."""

    def __init__(self, folder: Path, tracking: str, *arguments: str) -> None:
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
        environment.pop("RAY_ADDRESS", None)
        self.process = subprocess.Popen(
            [
                sys.executable,
                "-m",
                "crossreg.jobs.serve",
                *arguments,
                "--port",
                "0",
                "--json",
                "--tracking-uri",
                tracking,
            ],
            cwd=folder,
            env=environment,
            stdout=self.stdout.open("w"),
            stderr=self.stderr.open("w"),
            start_new_session=True,
        )
        try:
            wait_for(
                lambda: self.stdout.read_text().endswith("\n"), "address of the service", 240,
                every=0.1, process=self.process, said=self.stderr,
            )  # fmt: skip
        except BaseException:
            self.stop()
            raise
        self.url = str(json.loads(self.stdout.read_text())["url"])
        self.http = httpx.Client(base_url=self.url, trust_env=False, timeout=100)

    def predict(self, x: np.ndarray) -> dict[str, Any]:
        response = self.http.post("/predict", json={"inputs": x.tolist()})
        assert response.status_code == 200, response.text
        return dict(response.json())

    def ready(self) -> dict[str, Any]:
        return dict(self.http.get("/readyz").json())

    def wait(self, **wanted: Any) -> dict[str, Any]:
        """Wait until `/readyz` says this."""
        seen: dict[str, Any] = {}

        def says() -> bool:
            seen.update(self.ready())
            return all(seen[key] == value for key, value in wanted.items())

        wait_for(says, f"{wanted} of the service", every=0.1, said=lambda: f"{seen}\n{self.stderr.read_text()[-2000:]}")
        return seen

    def replicas(self) -> list[psutil.Process]:
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            with contextlib.suppress(psutil.Error):
                if "ServeReplica" in " ".join(process.cmdline()):
                    found.append(process)
        return found

    def wait_for_replicas(self, count: int, without: psutil.Process) -> None:
        """Wait until so many run, one process not among them."""
        wait_for(
            lambda: len({process.pid for process in self.replicas()} - {without.pid}) == count,
            f"{count} replicas without process {without.pid}", every=0.1, said=self.stderr,
        )  # fmt: skip
        self.wait(replicas={"RUNNING": count})

    def stop(self) -> int:
        """End it by SIGTERM, as a supervisor would; by SIGKILL what then still lives."""
        tree = psutil.Process(self.process.pid).children(recursive=True) if self.process.poll() is None else []
        self.process.terminate()
        try:
            return self.process.wait(60)
        finally:
            for process in [psutil.Process(self.process.pid)] if self.process.poll() is None else []:
                process.kill()
            for process in psutil.wait_procs(tree, timeout=10)[1]:
                process.kill()


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Store:
    return Store(tmp_path_factory.mktemp("store"))


@pytest.fixture(scope="session")
def digits(models: Store) -> tuple[str, Path]:
    return models.train("digits")


@pytest.fixture(scope="session")
def regression(models: Store) -> tuple[str, Path]:
    return models.train("diabetes")


@pytest.fixture(scope="session")
def exported(digits: tuple[str, Path]) -> Exported:
    return load_exported(digits[1])


@pytest.fixture(scope="session")
def images() -> np.ndarray:
    """Test images of handwritten digits, uint8 `[N, 1, 8, 8]`."""
    return load_data(TrainConfig.model_validate({"data": {"name": "digits"}}).data).test.x


@pytest.fixture(scope="session")
def service(models: Store, digits: tuple[str, Path], tmp_path_factory: pytest.TempPathFactory) -> Iterator[Service]:
    uri = models.promote(digits[0]).uri
    running = Service(
        tmp_path_factory.mktemp("service"), models.uri, uri, "--poll-seconds", "0.3", "--max-request-mb", "1",
        "--max-examples", "100",
    )  # fmt: skip
    yield running
    assert running.stop() == 0, running.stderr.read_text()[-2000:]
    assert "Traceback" not in running.stderr.read_text()
