"""A training without flags, assembled as for a user: what it is given, what it refuses, what it ends with."""

from __future__ import annotations

import copy
import statistics
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossreg.core.errors import UserError
from crossreg.prediction.calibration import fit_deviation
from crossreg.services.data import DataConfig, load_data
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.budget import parse_budget
from crossreg.services.training.check import check
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.describe import taken_as_is
from crossreg.services.training.resolve import ResolvedConfig, resolve
from crossreg.services.training.result import result_of
from crossreg.services.training.tuning import LONGEST, TRIALS, draw, mean_passes
from crossreg.training.budget import Budget
from crossreg.training.trainer import Trainer

CPU = torch.device("cpu")


def settings(**changes: Any) -> dict[str, Any]:
    return {"data": {"name": "digits", "limit": 200}, "model": "mlp", "model_options": {"hidden": 16}, **changes}


def resolved(**changes: Any) -> ResolvedConfig:
    config = TrainConfig.model_validate(settings(**changes))
    return resolve(config, load_data(config.data))


def trained(**changes: Any) -> Trainer:
    torch.set_num_threads(1)
    config = resolved(**changes)
    data = load_data(config.data)
    check(config, data)
    trainer = build_trainer(config, data, CPU)
    trainer.fit()
    return trainer


def test_every_network_of_a_small_table_has_rows_to_learn_from(tmp_path: Path) -> None:
    rows = [f"{i},{i % 5},{i * 0.37:.2f}" for i in range(12)]
    (tmp_path / "few.csv").write_text("a,b,y\n" + "\n".join(rows) + "\n")
    trainer = trained(data={"name": str(tmp_path / "few.csv"), "target": "y", "task": "regression"}, epochs=40)
    assert trainer.train.batch_size >= 2 * trainer.model.shares  # type: ignore[operator]


def test_a_batch_too_small_for_the_networks_is_refused() -> None:
    config = resolved(batch_size=6, ensemble=4)
    with pytest.raises(UserError, match="each needs two examples at least"):
        check(config, load_data(config.data))
    assert resolved(batch_size=4).ensemble == 2  # where nothing is said there are as many as the batch is for


def test_what_has_ended_by_itself_is_not_made_longer() -> None:
    first = trained(epochs=8)
    again = build_trainer(resolved(epochs=80), load_data(resolved().data), CPU)
    with pytest.raises(UserError, match="has found its length"):
        again.load_state_dict(first.state_dict())
    build_trainer(resolved(epochs=8), load_data(resolved().data), CPU).load_state_dict(first.state_dict())


def test_fewer_steps_than_the_cooldown_needs_are_refused() -> None:
    config = resolved(steps=200)
    first = build_trainer(config, load_data(config.data), CPU)
    first.start()
    first.advance(150)
    again = build_trainer(resolved(steps=155), load_data(config.data), CPU)
    with pytest.raises(UserError, match="beyond the 155 steps"):
        again.load_state_dict(first.state_dict())


@pytest.mark.parametrize("off", [False, 0])
def test_dropout_is_off_where_it_is_said_to_be(off: Any) -> None:
    assert resolved(regularizers={"dropout": off}).regularizers["dropout"].value == 0
    assert resolved(regularizers={"l2": None}).regularizers["dropout"].value == 0.1


def test_what_predicts_numbers_has_no_dropout_unless_told() -> None:
    assert "dropout" not in resolved(data={"name": "diabetes"}, model="mlp").regularizers
    assert (
        resolved(data={"name": "diabetes"}, model="mlp", regularizers={"dropout": 0.2}).regularizers["dropout"].value
        == 0.2
    )


def test_a_temperature_that_would_be_fitted_over_is_refused() -> None:
    with pytest.raises(ValueError, match="temperature is fixed at 2"):
        resolved(regularizers={"temperature": 2.0})


def test_a_function_of_ones_own_is_given_a_dropout_and_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "found_models.py").write_text(
        "from torch import nn\n"
        "def net(*, input_shape, num_outputs, dropout=0.0):\n"
        "    return nn.Sequential(nn.Flatten(), nn.Linear(64, num_outputs))\n"  # without a layer of dropout
    )
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(sys.modules, "found_models", raising=False)
    given = {"model": "found_models:net", "model_options": {}}
    trainer = trained(**given, epochs=4)
    assert trainer.step > 0
    config = resolved(**given)
    assert config.model_options == {"dropout": 0.1}
    (said,) = taken_as_is(config, load_data(config.data))
    assert "is called with dropout=0.1" in said


def test_patterns_of_names_are_for_every_network() -> None:
    config = resolved(regularizers={"noise": {"where": ["norm1"]}}, ensemble=2)
    trainer = build_trainer(config, load_data(config.data), CPU)
    assert trainer.regularizer is not None
    assert list(trainer.regularizer.hyperparameters) == ["noise/00_members.0.norm1", "noise/01_members.1.norm1"]


def test_the_result_has_one_temperature_and_its_reason() -> None:
    result = result_of(trained(epochs=20))
    assert result.test_scaled == {}
    assert "held-out loss was best at step" in result.stopped
    assert result.regularizers["temperature"] != 1


def test_a_training_that_diverges_is_not_evaluated_at_every_step() -> None:
    trainer = trained(epochs=40, optimizer={"lr": 1e30})
    assert len(trainer.held_out) < 8


def test_of_few_errors_that_are_small_not_all_are_believed_to_be() -> None:
    assert fit_deviation(0.05, 2, 0.5) > 0.2
    assert fit_deviation(0.5, 100_000, 0.5) == pytest.approx(0.5, rel=1e-4)
    assert fit_deviation(1.0, 3, 0.5) == pytest.approx(1.0)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("90s", Budget(90, "seconds", "90s")),
        (" 1.5 H ", Budget(5_400, "seconds", "1.5 H")),
        ("5m", Budget(300, "seconds", "5m")),
        ("1e15flops", Budget(1e15, "flops", "1e15flops")),
    ],
)
def test_budgets_are_read(text: str, expected: Budget) -> None:
    assert parse_budget(text) == expected


def test_a_share_of_a_search_is_that_of_its_draws() -> None:
    drawn = statistics.mean(sum(draw("any", seed, index)["length"] for index in range(TRIALS)) for seed in range(200))
    assert parse_budget("0.1search").amount == pytest.approx(0.1 * LONGEST * drawn, rel=0.03)


@pytest.mark.parametrize("text", ["", "5", "5 min", "-1s", "0s", "inf s", "nans", "1e999flops", "1.2.3s", "."])
def test_what_is_no_budget_is_refused_with_what_is(text: str) -> None:
    with pytest.raises(ValueError, match=r"90s, 5m, 2h"):
        resolved(budget=text)


def test_a_budget_bounds_the_run_in_place_of_epochs() -> None:
    trainer = trained(budget="0.02search")
    assert trainer.course is not None
    assert trainer.step * trainer.train.batch_size < 0.02 * mean_passes() * trainer.train.num_examples
    assert trained(budget="0.5search", epochs=8).step == trained(epochs=8).step  # beside them, the smaller one
    assert resolved(budget="5m").expected_steps == resolved().steps  # what is logged and kept is spaced as ever


def test_a_budget_is_for_a_length_that_is_found() -> None:
    with pytest.raises(ValueError, match=r"has a length that is given; use --epochs"):
        resolved(budget="5m", optimizer={"schedule": "cosine"})


@pytest.mark.parametrize(("shape", "time"), [((6, 40), "last"), ((40, 6), "first")])
def test_a_sequence_gets_a_network_for_sequences_and_its_channels_a_scale_each(
    shape: tuple[int, int], time: str, tmp_path: Path
) -> None:
    rng = np.random.default_rng(0)
    scale = 10.0 ** np.arange(6)
    x = rng.normal(size=(80, 40, 6)) * scale
    x = x if time == "first" else x.transpose(0, 2, 1)
    np.savez(tmp_path / "recordings.npz", x=x.astype("float32"), y=np.arange(80) % 2)
    config = TrainConfig.model_validate({"data": {"name": str(tmp_path / "recordings.npz")}})
    data = load_data(config.data)
    found = resolve(config, data)
    assert (found.model, data.input_shape) == ("cnn1d", (6, 40))
    assert "sequences of 40 steps of 6 values; if the other axis is time, say --time-axis" in "".join(data.notes)
    trainer = build_trainer(found, data, CPU)
    inputs, _ = next(iter(trainer.train))
    assert inputs.std(dim=(0, 2)) == pytest.approx(1, abs=0.2)
    other = config.data.model_copy(update={"time_axis": "last" if time == "first" else "first"})
    assert load_data(other).input_shape == (40, 6)


def test_an_axis_of_time_is_for_sequences(tmp_path: Path) -> None:
    x = np.random.default_rng(0).normal(size=(80, 5, 4, 4))
    np.savez(tmp_path / "cubes.npz", x=x, y=np.arange(80) % 2)
    with pytest.raises(UserError, match=r"has dtype float64 and shape \(80, 5, 4, 4\); sequences are numbers"):
        load_data(DataConfig(name=str(tmp_path / "cubes.npz"), time_axis="last"))
    with pytest.raises(UserError, match="time_axis"):
        load_data(DataConfig(name="digits", time_axis="last"))


def test_whole_numbers_that_could_be_tokens_are_said_to_be_taken_as_quantities(tmp_path: Path) -> None:
    np.savez(tmp_path / "names.npz", x=np.arange(800).reshape(80, 10) % 30, y=np.arange(80) % 2)
    config = TrainConfig.model_validate({"data": {"name": str(tmp_path / "names.npz")}})
    data = load_data(config.data)
    assert any("taken as quantities" in line for line in taken_as_is(resolve(config, data), data))


# ensembles of several kinds


def test_networks_are_given_as_a_number_or_by_name() -> None:
    assert resolved(ensemble="3").ensemble == 3
    for given in ({"ensemble": "mlp,cnn"}, {"ensemble": ["mlp", "cnn"]}, {"model": "mlp,cnn"}):
        config = TrainConfig.model_validate({"data": {"name": "digits"}} | given)
        assert (config.model, config.ensemble) == ("mlp,cnn", 2)
    four = TrainConfig.model_validate({"data": {"name": "digits"}, "model": "mlp,cnn", "ensemble": 4})
    assert (four.model, four.ensemble) == ("mlp,cnn", 4)
    with pytest.raises(ValueError, match="ensemble names networks, mlp,cnn, and model is cnn; leave one out"):
        TrainConfig.model_validate({"data": {"name": "digits"}, "model": "cnn", "ensemble": "mlp,cnn"})


def test_what_does_not_suit_all_networks_is_refused() -> None:
    config = TrainConfig.model_validate({"data": {"name": "japanese-vowels"}, "ensemble": "lstm,mlp"})
    data = load_data(config.data)
    with pytest.raises(UserError, match="'lstm,mlp' takes sequences of one length, and those of japanese"):
        check(resolve(config, data), data)


def test_networks_of_two_kinds_train_resume_and_are_judged_one_by_one() -> None:
    torch.set_num_threads(1)
    given = {"ensemble": "gru,cnn1d", "epochs": 6, "data": {"name": "japanese-vowels"}}
    config = TrainConfig.model_validate(given)
    data = load_data(config.data)
    whole = build_trainer(resolve(config, data), data, CPU)
    whole.fit()
    found = result_of(whole)
    assert len(found.networks) == 2
    assert 0 < found.disagreement < 1
    assert found.alone["member"] in (0, 1)
    cut = build_trainer(resolve(config, data), data, CPU)
    cut.start()
    cut.advance(whole.step // 2)
    state = copy.deepcopy(cut.state_dict())
    again = build_trainer(resolve(config, data), data, CPU)
    again.load_state_dict(state)
    again.fit()
    for one, other in zip(whole.model.parameters(), again.model.parameters(), strict=True):
        assert torch.equal(one, other)
    assert result_of(again).alone == found.alone
