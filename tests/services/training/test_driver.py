from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest

from crossreg import UserError
from crossreg.services.data import load_data
from crossreg.services.tracking import TrackingConfig
from crossreg.services.training import driver
from crossreg.services.training.assemble import build_model, checkpoint_identity
from crossreg.services.training.check import check, starting_state
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.describe import note, regularized_by
from crossreg.services.training.resolve import resolve
from crossreg.training.checkpoint import save_checkpoint


def test_the_note_of_a_run_holds_the_command_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://me:hunter2@db/mlflow"
    monkeypatch.setattr(sys, "argv", ["/env/bin/crossreg", "train", "--data", "digits", "--tracking-uri", uri])
    config = TrainConfig.model_validate({"data": {"name": "digits"}})
    text = note(config, load_data(config.data))
    assert "crossreg train --data digits --tracking-uri" in text
    assert "hunter2" not in text
    monkeypatch.setattr(sys, "argv", ["/code/jobs/train.py", "--data", "digits"])
    monkeypatch.setattr(sys, "orig_argv", ["/env/bin/python", "-m", "crossreg.jobs.train", "--data", "digits"])
    assert "python -m crossreg.jobs.train --data digits" in note(config, load_data(config.data))


def mlp(**settings: Any) -> TrainConfig:
    given = {"model": "mlp", "data": {"name": "digits"}, "optimizer": {"schedule": "cosine"}}
    return TrainConfig.model_validate(given | settings)


def test_a_checkpoint_that_claims_to_be_of_this_training_and_is_not(tmp_path: Path) -> None:
    data = load_data(mlp().data)
    config = resolve(mlp(steps=100), data)
    identity = checkpoint_identity(config, data)
    right = build_model(config, data).state_dict()
    missing = {name: weight for name, weight in right.items() if not name.endswith("weight")}
    reshaped = {name: weight.new_zeros(3, 5) for name, weight in right.items()}
    for number, weights in enumerate((missing, reshaped)):
        path = save_checkpoint({"model": weights, "step": 1}, tmp_path / str(number), **identity)
        with pytest.raises(UserError, match="does not hold the weights of this model"):
            starting_state(config, data, str(path))
    path = save_checkpoint({"model": right, "step": 1}, tmp_path / "right", **identity)
    assert starting_state(config, data, str(path))["step"] == 1
    with pytest.raises(UserError, match="is of step 1, and this run has 1"):
        starting_state(config.model_copy(update={"steps": 1}), data, str(path))
    other = resolve(mlp(steps=100, regularizers={"noise": None}), data)
    with pytest.raises(UserError, match="was saved with regularizers"):
        starting_state(other, data, str(path))


def test_a_changing_number_of_workers_shares_one_batch() -> None:
    data = load_data(mlp().data)
    sizes = Placement(workers=3, min_workers=1).sizes
    config = resolve(mlp(), data, sizes)
    assert config.batch_size == config.rho.batch_size == 126  # the largest up to 128 that 1, 2 and 3 share
    check(config, data, sizes)
    assert resolve(mlp(), data).batch_size == 128
    with pytest.raises(UserError, match="batch size is 100; it must be a multiple of the 3 workers"):
        check(resolve(mlp(batch_size=100), data, sizes), data, sizes)
    with pytest.raises(ValueError, match="min_workers is 4, but workers is 3"):
        Placement(workers=3, min_workers=4)


def test_what_is_resolved_stays_so_on_other_workers() -> None:
    """A resumed run keeps its batch, its interval and what it learns by."""
    data = load_data(mlp().data)
    recorded = resolve(mlp(), data, range(3, 4))
    assert recorded.batch_size == 126
    read = TrainConfig.model_validate_json(recorded.model_dump_json(exclude_none=True))
    assert resolve(read, data, range(2, 3)) == recorded
    assert resolve(recorded, data, range(2, 3)) is recorded
    assert (recorded.steps, recorded.rho.interval, recorded.rho.estimator) == (200, 12, "direct")
    assert recorded.evaluation_interval == 20


def test_short_runs_update_more_often() -> None:
    data = load_data(mlp().data)
    intervals = {steps: resolve(mlp(steps=steps), data).rho.interval for steps in (1, 16, 160, 480, 10_000)}
    assert intervals == {1: 1, 16: 1, 160: 10, 480: 30, 10_000: 30}
    assert resolve(mlp(rho={"interval": 7}), data).rho.interval == 7


def test_what_regularizes_is_said_in_a_line() -> None:
    data = load_data(mlp().data)
    assert regularized_by(resolve(mlp(), data)) == "learns noise 0.1, temperature 1; fixed: weight_decay 0.01"
    assert regularized_by(mlp(regularizers="none")) == "learns nothing"
    assert regularized_by(mlp(regularizers={"norm": None, "l2": 0.1})) == "learns norm; fixed: l2 0.1"


def test_a_tracking_server_that_is_away_is_said_before_ray_starts(monkeypatch: pytest.MonkeyPatch) -> None:
    def never(placement: Placement) -> None:
        raise AssertionError("Ray was started")

    monkeypatch.setattr(driver, "start_ray", never)
    with pytest.raises(UserError, match="start the server"):
        driver.train(mlp(steps=1), Placement(), TrackingConfig(uri="http://127.0.0.1:1"))
