from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from crossreg import UserError
from crossreg.training.checkpoint import save_checkpoint
from services.data import load_data
from services.tracking import TrackingConfig
from services.training import driver
from services.training.assemble import about, batch_size, build_model, num_steps, settled, starting_state
from services.training.config import Placement, TrainConfig
from services.training.describe import note, resolved


def test_the_note_of_a_run_holds_the_command_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://me:hunter2@db/mlflow"
    monkeypatch.setattr(sys, "argv", ["/env/bin/crossreg", "train", "--data", "digits", "--tracking-uri", uri])
    config = TrainConfig.model_validate({"data": {"name": "digits"}})
    text = note(config, load_data(config.data))
    assert "crossreg train --data digits --tracking-uri" in text
    assert "hunter2" not in text
    monkeypatch.setattr(sys, "argv", ["/code/jobs/train.py", "--data", "digits"])
    monkeypatch.setattr(sys, "orig_argv", ["/env/bin/python", "-m", "jobs.train", "--data", "digits"])
    assert "python -m jobs.train --data digits" in note(config, load_data(config.data))


def mlp(**settings: Any) -> TrainConfig:
    return TrainConfig.model_validate({"model": "mlp", "data": {"name": "digits"}, **settings})


def test_a_checkpoint_that_claims_to_be_of_this_training_and_is_not(tmp_path: Path) -> None:
    config = mlp()
    data = load_data(config.data)
    right = build_model(config, data).state_dict()
    missing = {name: weight for name, weight in right.items() if not name.endswith("weight")}
    reshaped = {name: weight.new_zeros(3, 5) for name, weight in right.items()}
    for number, weights in enumerate((missing, reshaped)):
        path = save_checkpoint({"model": weights, "step": 1}, tmp_path / str(number), **about(config, data))
        with pytest.raises(UserError, match="does not hold the weights of this model"):
            starting_state(config, data, str(path), 100)
    path = save_checkpoint({"model": right, "step": 1}, tmp_path / "right", **about(config, data))
    assert starting_state(config, data, str(path), 100)["step"] == 1
    with pytest.raises(UserError, match="is of step 1, and this run has 1"):
        starting_state(config, data, str(path), 1)


def test_a_changing_number_of_workers_shares_one_batch() -> None:
    data = load_data(mlp().data)
    config = settled(mlp(), data, Placement(workers=3, min_workers=1).sizes)
    assert config.batch_size == 126  # the largest up to 128 that 1, 2 and 3 share
    assert all(batch_size(config, data, workers) == 126 for workers in (1, 2, 3))
    assert len({num_steps(config, data, workers) for workers in (1, 2, 3)}) == 1
    assert settled(mlp(), data, Placement(workers=3).sizes) == mlp()
    with pytest.raises(UserError, match="batch size is 100; it must be a multiple of the 3 workers"):
        settled(mlp(batch_size=100), data, Placement(workers=3, min_workers=1).sizes)
    with pytest.raises(ValueError, match="min_workers is 4, but workers is 3"):
        Placement(workers=3, min_workers=4)


def test_a_resumed_run_keeps_the_batch_on_other_workers() -> None:
    data = load_data(mlp().data)
    recorded = resolved(mlp(), data, Placement(workers=3))
    assert recorded.batch_size == batch_size(mlp(), data, 3) == 126
    assert batch_size(recorded, data, 2) == 126


def test_a_tracking_server_that_is_away_is_said_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(placement: Placement) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(driver, "start_ray", never)
    with pytest.raises(UserError, match="start the server"):
        driver.train(mlp(steps=1), Placement(), TrackingConfig(uri="http://127.0.0.1:1"))
