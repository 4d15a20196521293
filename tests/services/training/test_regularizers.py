"""Every regularizer of the registry in a configuration: fixed, learned, recorded, restored, exported."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossreg.core.metrics import hyperparameters_in
from crossreg.prediction.export import load_exported
from crossreg.prediction.predict import predict
from crossreg.regularizers.between import BETWEEN
from crossreg.regularizers.registry import REGISTRY, description
from crossreg.services.data import Dataset, load_data
from crossreg.services.tracking import Tracker
from crossreg.services.training.assemble import build_model, build_trainer, preprocess_of
from crossreg.services.training.check import check
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.publish import export_training, publish
from crossreg.services.training.resolve import ResolvedConfig, resolve
from crossreg.services.training.result import result_of

CPU = torch.device("cpu")
LEARNABLE = [name for name, entry in REGISTRY.items() if entry.hyperparameter.learned_by_rho]


def settings(**changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {
            "model": "mlp",
            "model_options": {"hidden": 16, "depth": 2},
            "data": {"name": "digits", "limit": 300},
            "optimizer": {"schedule": "cosine"},
            "steps": 6,
            "batch_size": 32,
            "rho": {"interval": 3},
            "evaluations": 1,
            **changes,
        }
    )


def digits() -> Dataset:
    return load_data(settings().data)


def config(**changes: Any) -> ResolvedConfig:
    between = {entry.name for entry in BETWEEN} & set(changes.get("regularizers", ()))
    return resolve(settings(**({"ensemble": 2} if between else {}), **changes), digits())


def inside(name: str) -> float:
    """A value in the middle of what is searched."""
    return description(name).at(0.5)


@pytest.mark.parametrize("name", REGISTRY)
def test_what_is_fixed_stays_and_is_in_the_result(name: str) -> None:
    fixed = config(regularizers={name: inside(name)})
    data = digits()
    check(fixed, data)
    trainer = build_trainer(fixed, data, CPU)
    assert trainer.regularizer is None
    values = trainer.fit()
    assert not hyperparameters_in(values)
    result = result_of(trainer)
    mine = {key: value for key, value in result.regularizers.items() if key.partition("/")[0] == name}
    assert mine
    assert list(mine.values()) == pytest.approx([inside(name)] * len(mine), rel=1e-3)
    assert result.learned == []


@pytest.mark.parametrize("name", LEARNABLE)
def test_what_is_learned_moves_and_is_recorded(name: str) -> None:
    start = description(name).default or inside(name)
    learned = config(regularizers={name: {"start": start}, "loss_temperature" if name == "l2" else "l2": 0.01})
    data = digits()
    check(learned, data)
    trainer = build_trainer(learned, data, CPU)
    recorded = hyperparameters_in(trainer.fit())
    result = result_of(trainer)
    assert result.learned == list(recorded)
    assert {key.partition("/")[0] for key in recorded} == {name}
    for key, value in recorded.items():
        assert value == pytest.approx(result.regularizers[key], rel=1e-4)
        assert value != pytest.approx(start, rel=1e-4)
        assert value == pytest.approx(start, rel=1)


@pytest.mark.parametrize("name", REGISTRY)
def test_a_checkpoint_restores_it(name: str) -> None:
    learn = description(name).learned_by_rho
    one = config(regularizers={name: {"start" if learn else "value": inside(name)}})
    data = digits()
    trainer = build_trainer(one, data, CPU)
    trainer.fit()
    again = build_trainer(one, data, CPU)
    again.load_state_dict(trainer.state_dict())
    assert result_of_values(again) == pytest.approx(result_of_values(trainer))


def result_of_values(trainer: Any) -> dict[str, float]:
    from crossreg.regularizers.registry import get_hyperparameters

    return get_hyperparameters(trainer.model, trainer.optimizer)


@pytest.mark.parametrize("name", REGISTRY)
def test_the_exported_model_predicts_as_the_trained_one(name: str, tmp_path: Path) -> None:
    """What regularizes training alone is not in it; what predictions need is."""
    from crossreg import load_checkpoint, save_checkpoint

    learn = description(name).learned_by_rho
    one = config(regularizers={name: {"start" if learn else "value": inside(name)}})
    data = digits()
    trainer = build_trainer(one, data, CPU)
    trainer.fit()
    save_checkpoint(trainer.state_dict(), tmp_path / "checkpoint")
    model = build_model(one, data)
    model.load_state_dict(load_checkpoint(tmp_path / "checkpoint")["model"])
    export_training(one, data, model, tmp_path / "model")
    exported = load_exported(tmp_path / "model")
    x = data.test.x[:20]
    with torch.no_grad():
        preprocess = preprocess_of(data, one.model)
        assert preprocess is not None
        inputs = preprocess(torch.from_numpy(x))
        expected = predict(trainer.model, inputs, 4, loss=data.task, seed=5, common=True).mean.numpy()
    np.testing.assert_allclose(exported(x, samples=4, seed=5), expected, rtol=1e-4, atol=1e-6)
    kept = {key.partition(".")[2] for key in load_keys(tmp_path / "model") if key.startswith("model.")}
    without = config(regularizers={}, model_options=one.model_options).model_copy(update={"ensemble": one.ensemble})
    plain = set(build_model(without, data).state_dict())
    assert (kept > plain) if REGISTRY[name].exported else (kept == plain)


def load_keys(folder: Path) -> list[str]:
    from safetensors import safe_open

    with safe_open(folder / "weights.safetensors", "pt") as file:
        return list(file.keys())


def test_published_figures_show_every_learned_hyperparameter(tmp_path: Path) -> None:
    from crossreg.services.tracking import TrackingConfig

    one = config(regularizers={"noise": None, "temperature": None, "l2": {"start": 0.01}}, steps=12)
    data = digits()
    tracker = Tracker.start(
        TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"), experiment="e", run_name="r", params={}, tags={},
        spool_dir=tmp_path / "tracking", system_interval=None,
    )  # fmt: skip
    trainer = build_trainer(one, data, CPU)
    trainer.callbacks.append(Recording(tracker))
    trainer.fit()
    from crossreg import save_checkpoint

    save_checkpoint(trainer.state_dict(), tmp_path / "checkpoint")
    from ray.train import Checkpoint

    checkpoint = Checkpoint.from_directory(str(tmp_path / "checkpoint"))
    uri = publish(one, data, result_of(trainer), checkpoint, tmp_path / "model", tracker)
    assert uri is not None
    assert tracker.finish("FINISHED")
    from mlflow import MlflowClient

    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    names = {entry.path for entry in client.list_artifacts(tracker.run_id, "figures")}
    assert "figures/hyperparameter_trajectories.png" in names
    metrics = client.get_run(tracker.run_id).data.metrics
    assert {key for key in metrics if key.startswith("regularizers/")} == {
        "regularizers/noise/00_norm1", "regularizers/noise/01_norm2", "regularizers/temperature", "regularizers/l2",
    }  # fmt: skip


from crossreg import Callback  # noqa: E402


class Recording(Callback):
    """Records what the loop says."""

    def __init__(self, tracker: Tracker) -> None:
        self.tracker = tracker

    def on_metrics(self, trainer: Any, values: dict[str, float]) -> None:
        self.tracker.record(values, trainer.step)


def test_parts_are_fixed_and_started_by_themselves() -> None:
    one = config(regularizers={"noise": {"start": 0.2}, "noise/00_norm1": 0.7})
    trainer = build_trainer(one, digits(), CPU)
    trainer.fit()
    values = result_of(trainer).regularizers
    assert values["noise/00_norm1"] == pytest.approx(0.7)
    assert values["noise/01_norm2"] != pytest.approx(0.2)
    assert result_of(trainer).learned == ["noise/01_norm2"]


def test_the_estimator_is_the_cheapest_that_reaches_all() -> None:
    names = {"direct": ["noise", "norm"], "unrolled": ["noise", "l2"]}
    for estimator, learned in names.items():
        assert config(regularizers=learned).rho.estimator == estimator
    assert config(regularizers=["shift"], rho={"estimator": "t1-t2"}).rho.estimator == "t1-t2"
    with pytest.raises(ValueError, match="direct gradient cannot learn l2"):
        config(regularizers=["noise", "l2"], rho={"estimator": "direct"})


def test_updates_of_augmentation_take_larger_batches() -> None:
    data = load_data(settings(data={"name": "digits"}).data)
    reg = len(data.reg.x)
    assert 32 < reg < 512

    def rows(workers: int = 1, **changes: Any) -> int:
        return resolve(settings(data={"name": "digits"}, **changes), data, range(workers, workers + 1)).rho.batch_size

    assert rows(regularizers=["shift"]) == reg
    assert rows(5, regularizers=["shift"], batch_size=30) == reg // 5 * 5
    assert rows(regularizers=["l2"]) == 32
    assert rows(regularizers={"shift": 2.0}) == 32
    assert rows(regularizers=["shift"], rho={"batch_size": 64}) == 64


def test_zero_leaves_a_regularizer_out() -> None:
    assert settings(regularizers={"noise": 0, "l2": 0.0, "dropout": 0}).regularizers.keys() == {"dropout"}
    assert settings(regularizers={"noise": False, "l2": None}).learned == ["l2"]
