"""Tables of which a linear model says much: there networks start from it.

Measured in `docs/results/zero-flag.md`: where ridge regression predicts better than boosted trees, a network that has
few rows learns in vain what a linear model knows; where it says nearly all, there is no noise to average away.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from torch import nn

from crossreg.inputs import Table
from crossreg.models.mlp import LinearSkip
from crossreg.services.data import Dataset
from crossreg.services.training.simple import boosted_trees, ridge_regression

__all__ = ["NEARLY_ALL", "explained_linearly", "start_from_linear"]

NEARLY_ALL = 0.875
"""Share of the variance from which on there is hardly noise: between .86, where several networks were better on all
seeds, and .89, where one was."""

_FOLDS = 5
_MOST_ROWS = 10_000
_MOST_VALUES = 1_000_000
"""Numbers that decide, so that this takes seconds; twenty times as many are what the start is fitted to."""

_found: dict[str, float | None] = {}


def explained_linearly(data: Dataset) -> float | None:
    """Return the share of the variance that ridge regression explains where it beats boosted trees; None elsewhere.

    Both are scikit-learn's, with its defaults, in five-fold cross-validation on the training split; of a large table
    some rows decide. Only for one number of a table.
    """
    if data.task != "regression" or data.num_outputs != 1 or not isinstance(data.inputs, Table):
        return None
    if data.fingerprint not in _found:
        rows = _some(data, _MOST_VALUES)[:_MOST_ROWS]
        _found[data.fingerprint] = _by_ridge(*_scaled(data, rows))
    return _found[data.fingerprint]


def start_from_linear(model: nn.Module, data: Dataset) -> None:
    """Set the linear functions beside networks (`LinearSkip`) to ridge regression on the training split, in place.

    Those of classifiers stay as they are, at zero.
    """
    skips = [module for module in model.modules() if isinstance(module, LinearSkip)]
    if not skips or data.task != "regression":
        return
    x, y = _scaled(data, _some(data, 20 * _MOST_VALUES))
    ridge = ridge_regression().fit(x, y)
    for skip in skips:
        with torch.no_grad():
            skip.weight.copy_(torch.from_numpy(np.atleast_2d(ridge.coef_)))
            skip.bias.copy_(torch.from_numpy(np.atleast_1d(ridge.intercept_)))


def _by_ridge(x: np.ndarray, y: np.ndarray) -> float | None:
    from sklearn.model_selection import KFold, cross_val_score
    from threadpoolctl import threadpool_limits

    if len(x) < 2 * _FOLDS:
        return None
    folds = KFold(_FOLDS, shuffle=True, random_state=0)
    # on few rows threads wait for one another far longer than they work where other programs run too
    with threadpool_limits(1, user_api="openmp"):
        ridge, boosted = (
            float(cross_val_score(model, x, y[:, 0], cv=folds, scoring="r2").mean())
            for model in (ridge_regression(), boosted_trees(0))
        )
    return ridge if ridge > boosted else None


def _some(data: Dataset, values: int) -> np.ndarray:
    """Return rows in random order, of so many values at most."""
    return np.random.default_rng(0).permutation(len(data.train))[: max(1, values // math.prod(data.input_shape))]


def _scaled(data: Dataset, rows: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return what a network gets of some rows, flattened, and what it is to answer, in float64."""
    per_channel = (-1, *[1] * (len(data.input_shape) - 1))
    x = (data.train.x[rows].astype("float64") - data.mean.reshape(per_channel)) / data.std.reshape(per_channel)
    return x.reshape(len(x), -1), (data.train.y[rows] - data.target_mean) / data.target_std
