"""What is killed goes on: bit for bit, with every metric recorded once."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import mlflow
import psutil
import pytest
import torch

from tests.services.tracking.conftest import Server
from tests.services.training.conftest import SETTINGS, Start, Training

pytestmark = [pytest.mark.ray, pytest.mark.slow]


def state(result: dict[str, Any]) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(result["checkpoint"], weights_only=True)["state"]
    return content


def assert_same_end(a: dict[str, Any], b: dict[str, Any]) -> None:
    """Weights, sigma, both optimizers, scheduler, positions and random states are equal bit for bit."""
    one, two = state(a), state(b)
    assert one.keys() == two.keys()
    for part in ("model", "optimizer", "scheduler", "regularizer", "ranks", "step", "examples"):
        assert _plain(one[part]) == _plain(two[part]), part
    assert a["test"] == b["test"]
    assert a["regularizers"] == b["regularizers"]


def _plain(value: Any) -> Any:
    if isinstance(value, torch.Tensor):
        return value.tolist()
    if isinstance(value, dict):
        return {key: _plain(v) for key, v in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(v) for v in value]
    return value


def histories(training: Training, run_id: str) -> dict[str, list[tuple[int, float]]]:
    client = mlflow.MlflowClient(f"sqlite:///{training.folder / 'mlflow.db'}")
    run = client.get_run(run_id)
    assert run.info.status == "FINISHED"
    found = {}
    for key in run.data.metrics:
        if key.startswith("system/") or key.endswith(("_seconds", "per_second", "peak_memory_bytes")):
            continue
        found[key] = [(point.step, point.value) for point in client.get_metric_history(run_id, key)]
    return found


def assert_same_metrics(a: tuple[Training, dict[str, Any]], b: tuple[Training, dict[str, Any]]) -> None:
    one, two = histories(a[0], a[1]["run_id"]), histories(b[0], b[1]["run_id"])
    assert one.keys() == two.keys()
    for key, points in one.items():
        assert sorted(two[key]) == sorted(points), key
        assert len({step for step, _ in two[key]}) == len(two[key]), key
    assert [s for s, _ in sorted(one["regularizers/noise/00_norm1"])] == list(range(10, 401, 10))


@pytest.mark.faults
def test_a_worker_killed_in_mid_epoch_recovers_from_the_last_checkpoint(
    straight: tuple[Training, dict[str, Any]], start: Start, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("RAY_LOGGING_CONFIG_ENCODING", "JSON")
    training = start(settings=SETTINGS)
    seen = training.wait_for_step(150)
    assert seen < 350, "the training was too fast to be killed in the middle"
    os.kill(training.workers()[0].pid, signal.SIGKILL)
    result = training.finish()
    records = [json.loads(line) for line in next(training.folder.glob("runs/*/tracking/spool.jsonl")).open()]
    assert any("recovered" in str(record.get("tags", {})) for record in records)
    log = [json.loads(line) for line in training.stderr.read_text().splitlines() if line.startswith("{")]
    (lost,) = [line for line in log if line["message"].startswith("the workers changed")]
    assert (lost["levelname"], lost["run_id"], lost["step"] % 100) == ("WARNING", result["run_id"], 0)
    assert_same_end(straight[1], result)
    assert_same_metrics(straight, (training, result))


@pytest.mark.faults
def test_a_length_is_found_again_by_a_driver_that_was_killed(start: Start, tmp_path: Path) -> None:
    found = {**SETTINGS, "optimizer": {"schedule": "found"}, "ensemble": 2}
    whole = start(settings=found, folder=tmp_path / "whole").finish()
    assert "held-out loss was best at step" in whole["stopped"]
    training = start(settings=found, folder=tmp_path / "killed")
    training.wait_for_step(200)
    training.kill()
    (record,) = training.folder.glob("runs/*/tracking/run.json")
    again = ("--workers", "2", "--checkpoint-every", "100", "--resume", json.loads(record.read_text())["run_id"])
    resumed = start(*again, folder=tmp_path / "killed").finish()
    assert resumed["stopped"] == whole["stopped"]
    assert_same_end(whole, resumed)


def test_a_killed_driver_is_resumed_exactly(straight: tuple[Training, dict[str, Any]], start: Start) -> None:
    training = start(settings=SETTINGS)
    training.wait_for_step(150)
    training.kill()
    (record,) = training.folder.glob("runs/*/tracking/run.json")
    run_id = json.loads(record.read_text())["run_id"]
    resumed = start("--workers", "2", "--checkpoint-every", "100", "--resume", "latest")
    result = resumed.finish()
    assert f"going on with run {run_id} (" in resumed.stderr.read_text()
    assert result["run_id"] == run_id
    assert_same_end(straight[1], result)
    assert_same_metrics(straight, (resumed, result))


@pytest.mark.faults
def test_the_tracking_server_may_go_away_and_come_back(
    straight: tuple[Training, dict[str, Any]], start: Start, tmp_path: Path
) -> None:
    server = Server(f"sqlite:///{tmp_path / 'mlflow.db'}")
    server.start()
    try:
        training = start("--tracking-uri", server.url, settings=SETTINGS)
        training.wait_for_step(150)
        server.kill()
        gone = training.last_step()
        training.wait_for_step(gone + 100)  # training does not wait for the server
        server.start()
        result = training.finish()
    finally:
        server.kill()
    assert_same_end(straight[1], result)
    assert_same_metrics(straight, (training, result))


@pytest.mark.thorough
def test_interrupt_leaves_a_run_that_is_marked_and_can_go_on(start: Start) -> None:
    training = start(settings=SETTINGS)
    training.wait_for_step(150)
    children = psutil.Process(training.process.pid).children(recursive=True)
    training.process.send_signal(signal.SIGINT)
    assert training.process.wait(60) == 130
    message = training.stderr.read_text()
    assert "Traceback" not in message
    assert "--resume" in message
    run_id = json.loads(next(training.folder.glob("runs/*/tracking/run.json")).read_text())["run_id"]
    client = mlflow.MlflowClient(f"sqlite:///{training.folder / 'mlflow.db'}")
    assert client.get_run(run_id).info.status == "KILLED"
    assert not psutil.wait_procs(children, timeout=20)[1]


def test_run_is_complete_for_stock_clients(
    straight: tuple[Training, dict[str, Any]], monkeypatch: pytest.MonkeyPatch
) -> None:
    training, result = straight
    client = mlflow.MlflowClient(f"sqlite:///{training.folder / 'mlflow.db'}")
    run = client.get_run(result["run_id"])
    assert set(result) >= {"run_id", "test", "regularizers", "learned", "cost", "checkpoint", "model_uri"}
    assert set(result["test"]) == {"accuracy", "nll", "ece", "brier"}
    assert set(result["cost"]) == {"examples", "backward_examples", "flops", "worker_seconds"}
    assert result["learned"] == ["noise/00_norm1", "noise/01_norm2", "temperature"]
    assert result["test"]["accuracy"] > 0.9
    assert run.data.params["model"] == "mlp"
    assert run.data.params["rho.interval"] == "10"
    assert {"group", "method", "seed", "data.fingerprint", "world_size"} <= set(run.data.tags)
    (given,) = run.inputs.dataset_inputs
    assert (given.dataset.name, given.dataset.digest) == ("digits", run.data.tags["data.fingerprint"])
    figures = {f.path for f in client.list_artifacts(result["run_id"], "figures")}
    assert figures == {"figures/hyperparameter_trajectories.png", "figures/losses.png", "figures/reliability.png"}
    assert any(key.startswith("system/cpu") for key in run.data.metrics)
    monkeypatch.setenv("MLFLOW_TRACKING_URI", f"sqlite:///{training.folder / 'mlflow.db'}")
    from crossreg.services.data import DataConfig, load_data

    data = load_data(DataConfig(name="digits"))
    model = mlflow.pyfunc.load_model(result["model_uri"])
    predicted = model.predict(data.test.x, params={"samples": 16, "seed": 1})
    accuracy = float((predicted.argmax(1) == data.test.y).mean())
    assert accuracy == pytest.approx(result["test"]["accuracy"], abs=0.01)
