"""Tables of which a linear model says much: what is decided by it, where training starts, and that it is said."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch

from crossreg.models.mlp import LinearSkip
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.describe import taken_as_is
from crossreg.services.training.linear import NEARLY_ALL, explained_linearly
from crossreg.services.training.resolve import ResolvedConfig, resolve, says_nothing

SLOPES = np.array([3.0, -2.0, 1.0, 0.5])


def table(folder: Path, noise: float, *, curved: bool = False) -> DataConfig:
    rng = np.random.default_rng(0)
    x = rng.normal(size=(300, 4)) * [1, 10, 100, 1000] + 5  # of all scales
    scaled = (x - 5) / [1, 10, 100, 1000]
    y = np.sign(scaled[:, 0]) * np.sign(scaled[:, 1]) if curved else scaled @ SLOPES
    frame = pd.DataFrame(x, columns=list("abcd")).assign(y=7 + y + noise * rng.normal(size=300))
    frame.to_csv(folder / "t.csv", index=False)
    return DataConfig(name=str(folder / "t.csv"), target="y", task="regression")


def resolved(data: DataConfig, **changes: object) -> tuple[ResolvedConfig, Dataset]:
    loaded = load_data(data)
    return resolve(TrainConfig.model_validate({"data": data.model_dump(), **changes}), loaded), loaded


@pytest.mark.parametrize(("noise", "networks", "rate"), [(0.1, 1, 1e-3), (2.0, 8, 5e-3)])
def test_how_much_noise_there_is_decides_how_many_networks_there_are(
    tmp_path: Path, noise: float, networks: int, rate: float
) -> None:
    config, data = resolved(table(tmp_path, noise))
    explained = explained_linearly(data)
    assert explained is not None
    assert (explained >= NEARLY_ALL) == (networks == 1)
    assert (config.ensemble, config.optimizer.lr) == (networks, rate)
    assert config.model_options["linear_skip"] is True
    assert says_nothing(config, data)
    (said,) = taken_as_is(config, data)
    assert f"explains {explained:.1%}" in said
    assert ("one network, at a low learning rate" in said) == (networks == 1)


def test_what_trees_predict_better_starts_from_nothing(tmp_path: Path) -> None:
    config, data = resolved(table(tmp_path, 0.1, curved=True))
    assert explained_linearly(data) is None
    assert "linear_skip" not in config.model_options
    assert config.ensemble == 8


def test_what_is_said_is_kept(tmp_path: Path) -> None:
    config, data = resolved(
        table(tmp_path, 0.1), ensemble=3, optimizer={"lr": 2e-3}, model="mlp", model_options={"linear_skip": False}
    )
    assert (config.ensemble, config.optimizer.lr) == (3, 2e-3)
    assert config.model_options == {"linear_skip": False}
    assert not says_nothing(config, data)
    assert not taken_as_is(config, data)


@pytest.mark.parametrize("shape", [(2, 4, 4), (3, 5), (6,)])
def test_examples_of_any_shape_start_from_it_where_that_is_said(tmp_path: Path, shape: tuple[int, ...]) -> None:
    rng = np.random.default_rng(0)
    x = (3 * rng.normal(size=(300, *shape)) + np.arange(shape[0]).reshape(-1, *[1] * (len(shape) - 1))).astype(
        "float32"
    )
    np.savez(tmp_path / "a.npz", x=x, y=x.reshape(300, -1) @ rng.normal(size=int(np.prod(shape))))
    config, data = resolved(
        DataConfig(name=str(tmp_path / "a.npz"), task="regression"),
        model="mlp",
        model_options={"linear_skip": True, "hidden": 8},
    )
    trainer = build_trainer(config, data, torch.device("cpu"))
    x, y = next(iter(trainer.train))
    trainer.model.eval()
    with torch.no_grad():
        assert float((trainer.model(x) - y).square().mean()) < 1e-3


@pytest.mark.parametrize("style", ["independent", "shared"])
def test_training_starts_from_ridge_regression_and_ends_no_worse(tmp_path: Path, style: str) -> None:
    torch.set_num_threads(1)
    config, data = resolved(table(tmp_path, 0.1), ensemble=2, ensemble_style=style, epochs=20)
    trainer = build_trainer(config, data, torch.device("cpu"))
    x = torch.tensor((data.test.x - data.mean) / data.std).float()
    y = torch.tensor((data.test.y - data.target_mean) / data.target_std).float()

    def error() -> float:
        trainer.model.eval()
        with torch.no_grad():
            return float((trainer.model(x) - y).square().mean())

    at_first = error()
    assert at_first < 2 * (0.1 / float(data.target_std[0])) ** 2  # type: ignore[index]
    assert sum(isinstance(module, LinearSkip) for module in trainer.model.modules()) == (2, 1)[style == "shared"]
    trainer.fit()
    assert error() < 1.5 * at_first
    assert trainer.ledger is not None
    assert np.isfinite(trainer.ledger.cost.flops)
