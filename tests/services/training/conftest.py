"""Real trainings in processes of their own, as a user starts them."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import yaml

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]

SETTINGS: dict[str, Any] = {
    "model": "mlp",
    "model_options": {"hidden": 32, "depth": 2},
    "data": {"name": "digits"},
    "optimizer": {"name": "learned", "schedule": "cosine"},  # of all that go on exactly, what keeps the most
    "steps": 400,
    "batch_size": 64,
    "evaluations": 4,
    "rho": {"interval": 10},
    "placement": {"workers": 2, "checkpoint_every": 100},
}


class Training:
    """`python -m crossreg.jobs.train` in a folder, watched and killed like any process."""

    def __init__(self, folder: Path, *arguments: str, settings: dict[str, Any] | None = None) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.folder = folder
        if settings is not None:
            (folder / "config.yaml").write_text(yaml.safe_dump(settings))
            arguments = ("--config", "config.yaml", *arguments)
        environment = {**os.environ, "PYTHONPATH": str(ROOT)}
        environment.pop("MLFLOW_TRACKING_URI", None)
        environment.pop("RAY_ADDRESS", None)
        self.stdout, self.stderr = folder / "stdout", folder / "stderr"
        self.process = subprocess.Popen(
            [sys.executable, "-m", "crossreg.jobs.train", "--json", *arguments],
            cwd=folder,
            env=environment,
            stdout=self.stdout.open("w"),
            stderr=self.stderr.open("w"),
            start_new_session=True,
        )

    def finish(self, timeout: float = 240) -> dict[str, Any]:
        """Return what `--json` printed; the training must succeed."""
        status = self.process.wait(timeout)
        assert status == 0, self.stderr.read_text()[-3000:]
        result: dict[str, Any] = json.loads(self.stdout.read_text())
        return result

    def last_step(self) -> int:
        """Return the last step whose metrics reached the disk."""
        spools = list(self.folder.glob("runs/*/tracking/spool.jsonl"))
        steps = [0]
        for line in spools[0].read_text().splitlines() if spools else []:
            if '"train/loss"' in line and line.endswith("}"):
                steps.append(json.loads(line)["step"])
        return max(steps)

    def wait_for_step(self, step: int, timeout: float = 240) -> int:
        """Wait until the training has passed a step and stored a checkpoint."""

        def seen() -> int | None:
            there = list(self.folder.glob("runs/*/checkpoint_*/checkpoint.pt")) and self.last_step()
            return there if there and there >= step else None

        found = wait_for(seen, f"step {step} with a checkpoint", timeout, process=self.process, said=self.stderr)
        assert found is not None
        return found

    def workers(self) -> list[psutil.Process]:
        """Return the processes that train, found by what only they have loaded: a gloo process group."""
        found = []
        for process in psutil.Process(self.process.pid).children(recursive=True):
            try:
                title = " ".join(process.cmdline())
            except psutil.Error:
                continue
            if "RayTrainWorker" in title:
                found.append(process)
        return found

    def kill(self) -> None:
        """SIGKILL the driver and everything it started."""
        tree = [psutil.Process(self.process.pid)]
        tree += tree[0].children(recursive=True)
        for process in tree:
            with contextlib.suppress(psutil.Error):
                process.send_signal(signal.SIGKILL)
        psutil.wait_procs(tree, timeout=30)
        self.process.wait(30)


@pytest.fixture(scope="session")
def straight(tmp_path_factory: pytest.TempPathFactory) -> tuple[Training, dict[str, Any]]:
    """One training that nothing disturbed."""
    training = Training(tmp_path_factory.mktemp("straight"), settings=SETTINGS)
    return training, training.finish()


@pytest.fixture
def start(tmp_path: Path) -> Any:
    """Start trainings that end with the test."""
    started: list[Training] = []

    def run(*arguments: str, settings: dict[str, Any] | None = None, folder: Path = tmp_path) -> Training:
        started.append(Training(folder, *arguments, settings=settings))
        return started[-1]

    yield run
    for training in started:
        if training.process.poll() is None:
            training.kill()


Start = Callable[..., Training]
