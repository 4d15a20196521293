"""Simple models on a training's own splits."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from sklearn.ensemble import HistGradientBoostingRegressor
from sklearn.linear_model import LogisticRegression
from sklearn.metrics import log_loss
from sklearn.preprocessing import StandardScaler

from crossreg.services.data import DataConfig, load_data
from crossreg.services.training import simple
from crossreg.services.training.simple import better_than, simple_scores


def test_logistic_regression_is_scikit_learns_on_these_splits() -> None:
    data = load_data(DataConfig(name="digits", reg_share=0))
    (found,) = simple_scores(data).values()
    flat = [split.x.reshape(len(split), -1) for split in (data.train, data.test)]
    scaler = StandardScaler().fit(flat[0])
    model = LogisticRegression(max_iter=200).fit(scaler.transform(flat[0]), data.train.y)
    probabilities = model.predict_proba(scaler.transform(flat[1]))
    assert found["accuracy"] == pytest.approx((probabilities.argmax(1) == data.test.y).mean(), abs=0.004)
    assert found["nll"] == pytest.approx(log_loss(data.test.y, probabilities), rel=0.02)


def test_a_regularization_split_scales_the_temperature() -> None:
    data = load_data(DataConfig(name="digits"))
    scaled = simple_scores(data)["logistic regression"]
    raw = simple_scores(load_data(DataConfig(name="digits", reg_share=0)))["logistic regression"]
    assert scaled["nll"] < raw["nll"]  # though it has fewer examples to train on


def test_tables_are_boosted_too() -> None:
    data = load_data(DataConfig(name="diabetes"))
    found = simple_scores(data)
    assert list(found) == ["ridge regression", "gradient boosting"]
    assert data.target_std is not None
    model = HistGradientBoostingRegressor(random_state=0).fit(data.train.x, data.train.y[:, 0])
    error = (model.predict(data.test.x) - data.test.y[:, 0]) / data.target_std[0]
    assert found["gradient boosting"]["rmse"] == pytest.approx(np.sqrt((error**2).mean()), rel=0.02)
    assert 0.5 < found["ridge regression"]["rmse"] < 0.9


def test_of_a_large_training_split_a_part_is_taken(monkeypatch: pytest.MonkeyPatch) -> None:
    data = load_data(DataConfig(name="digits"))
    monkeypatch.setattr(simple, "_MOST_VALUES", 64 * 100)
    few = simple_scores(data)["logistic regression"]
    assert 0.6 < few["accuracy"] < 0.95
    assert simple_scores(data, seed=1)["logistic regression"] != few


def test_a_simple_model_that_is_better_in_all_is_named() -> None:
    models = {"a": {"accuracy": 0.9, "nll": 0.3}, "b": {"accuracy": 0.9, "nll": 0.5}}
    assert better_than({"accuracy": 0.8, "nll": 0.4, "ece": 0.1}, models) == ["a"]
    assert better_than({"accuracy": 0.95, "nll": 0.2}, models) == []
    assert better_than({"rmse": 0.5}, {"ridge": {"rmse": 0.4}}) == ["ridge"]
    assert better_than({"accuracy": 0.8}, {}) == []


def test_a_class_of_one_example_does_not_stop_boosting(tmp_path: Path) -> None:
    rows = [f"{i},{i % 7},{'rare' if i in (100, 13_900) else 'uv'[i % 2]}" for i in range(14_000)]
    (tmp_path / "rare.csv").write_text("t,a,y\n" + "\n".join(rows) + "\n")
    data = load_data(DataConfig(name=str(tmp_path / "rare.csv"), time_order="t", reg_share=0.1))
    assert min(np.bincount(data.train.y)) == 1
    assert simple_scores(data)["gradient boosting"]["accuracy"] > 0.3
