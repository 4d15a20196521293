"""Simple models on the same splits, so that nobody ships a network that loses to one unknowingly."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import torch

from crossreg.inputs import Sequence, Table
from crossreg.prediction import calibration
from crossreg.services.data import Dataset, Split

__all__ = ["better_than", "boosted_trees", "ridge_regression", "simple_scores"]

_ENOUGH_TO_HOLD_OUT = 20
_MOST_VALUES = 10_000_000
"""Numbers in a training set; of more rows some are taken, so that this takes seconds."""


def simple_scores(data: Dataset, seed: int = 0) -> dict[str, dict[str, float]]:
    """Return the test scores of a linear model, and of gradient boosting on a table, by the model's name.

    They are scikit-learn's, with its defaults, trained on the training split; a classifier's probabilities are
    temperature-scaled on the regularization split where there is one, as the network's are.

    Args:
        data: the splits.
        seed: of the rows taken of a large training split, and of the boosting.

    Returns:
        Accuracy, NLL, Brier score and ECE; or RMSE, in units of the target's deviation in the training split.
    """
    rows = np.arange(len(data.train))
    most = max(_MOST_VALUES // max(int(np.prod(data.input_shape)), 1), 1)
    if len(rows) > most:
        rows = np.sort(np.random.default_rng(seed).choice(rows, most, replace=False))
    part = Split(data.train.x[rows], data.train.y[rows])
    with warnings.catch_warnings():
        # a linear model that has not converged after its iterations is still one to compare with
        warnings.simplefilter("ignore")
        score = _classify if data.task == "classification" else _regress
        return {name: score(make(), data, part) for name, make in _models(data, seed).items()}


def better_than(result: dict[str, float], simple: dict[str, dict[str, float]]) -> list[str]:
    """Return the simple models that are better than a network in every score of the first rank.

    Args:
        result: the network's: accuracy and NLL, or RMSE, the best of raw and temperature-scaled.
        simple: theirs.
    """
    ranked = [name for name in ("accuracy", "nll", "rmse") if all(name in one for one in (result, *simple.values()))]

    def better(mine: dict[str, float]) -> bool:
        return all(mine[name] > result[name] if name == "accuracy" else mine[name] < result[name] for name in ranked)

    return [name for name, mine in simple.items() if ranked and better(mine)]


def ridge_regression() -> Any:
    """Return scikit-learn's, its penalty by leave-one-out cross-validation; inputs are to be of one scale."""
    from sklearn.linear_model import RidgeCV

    return RidgeCV(np.logspace(-3, 4, 15))


def boosted_trees(seed: int) -> Any:
    """Return scikit-learn's histogram gradient boosting of one number, with its defaults."""
    from sklearn.ensemble import HistGradientBoostingRegressor

    return HistGradientBoostingRegressor(random_state=seed)


def _models(data: Dataset, seed: int) -> dict[str, Callable[[], Any]]:
    from sklearn import ensemble, linear_model, pipeline, preprocessing

    def linear(model: Any) -> Any:
        return pipeline.make_pipeline(preprocessing.StandardScaler(), model)

    is_table = isinstance(data.inputs, Table)
    if data.task == "classification":
        found: dict[str, Callable[[], Any]] = {
            "logistic regression": lambda: linear(linear_model.LogisticRegression(max_iter=200))
        }
        if is_table:
            # stopping early holds out a part of each class, which needs two examples of it
            enough = int(np.bincount(data.train.y, minlength=data.num_outputs).min()) >= _ENOUGH_TO_HOLD_OUT
            stopping = "auto" if enough else False
            found["gradient boosting"] = lambda: ensemble.HistGradientBoostingClassifier(
                random_state=seed, early_stopping=stopping
            )
        return found
    found = {"ridge regression": lambda: linear(ridge_regression())}
    if is_table and data.num_outputs == 1:
        found["gradient boosting"] = lambda: boosted_trees(seed)
    return found


def _flat(x: np.ndarray, data: Dataset) -> np.ndarray:
    """Return a row an example; what follows a sequence's end is its channel's mean."""
    if isinstance(data.inputs, Sequence):
        x = np.where(np.isnan(x), data.mean[:, None], x)
    return x.reshape(len(x), -1).astype(np.float32)


def _classify(model: Any, data: Dataset, part: Split) -> dict[str, float]:
    model.fit(_flat(part.x, data), part.y)

    def probabilities(split: Split) -> torch.Tensor:
        found = np.zeros((len(split), data.num_outputs))
        found[:, model.classes_] = model.predict_proba(_flat(split.x, data))  # a part of the rows may lack a class
        return torch.from_numpy(found)

    test, targets = probabilities(data.test), torch.from_numpy(data.test.y)
    if not len(data.reg):
        return calibration.score(test, targets).as_dict()
    reg = probabilities(data.reg)
    return calibration.temperature_scaled(test, targets, reg, torch.from_numpy(data.reg.y))[0].as_dict()


def _regress(model: Any, data: Dataset, part: Split) -> dict[str, float]:
    assert data.target_mean is not None
    assert data.target_std is not None
    y = (part.y - data.target_mean) / data.target_std
    model.fit(_flat(part.x, data), y[:, 0] if y.shape[1] == 1 else y)
    error = model.predict(_flat(data.test.x, data)).reshape(len(data.test), -1)
    error -= (data.test.y - data.target_mean) / data.target_std
    return {"rmse": math.sqrt(float(np.mean(error**2)))}
