"""What a person tunes who trains a network: learning rate, length, and what regularizes, over published ranges.

A *space* (`crossreg.services.search.space`) is what a population changes while it trains; here every draw is a training
of its own, with its own length. The first of them is the default, so that a search is never worse for having searched.
"""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import numpy as np

from crossreg.core.random import derive_seed
from crossreg.regularizers.base import Hyperparameter
from crossreg.regularizers.registry import description

__all__ = ["LABEL_SMOOTHING", "LONGEST", "TRIALS", "TUNED", "draw", "mean_passes", "training_changes"]

TRIALS = 16
"""Trainings of a search; the first is the default."""
LONGEST = 60
"""Epochs of the longest of them."""

TUNED: tuple[Hyperparameter, ...] = (
    Hyperparameter(
        "learning_rate",
        help="learning rate of the weights, at the start of its schedule",
        unit="as the optimizer takes it",
        default=1e-3,
        range=(10**-3.5, 1e-2),
    ),
    Hyperparameter("length", help="of the training", unit="share of all epochs", default=1.0, range=(1 / 8, 1.0)),
    replace(description("weight_decay"), range=(1e-3, 1.0), default=0.01),
    replace(description("dropout"), range=(0.0, 0.6), default=0.0),
    replace(description("noise"), range=(0.01, 2.0), default=0.0),
)
"""Searched uniformly on the scale of each; half of the draws have no dropout, and half no noise."""
LABEL_SMOOTHING = 0.1
"""Of half of the draws; the others have none."""


def draw(name: str, seed: int, index: int) -> dict[str, float]:
    """Return what a trial is trained with; the same for the same arguments whoever asks.

    Args:
        name: of the search, so that searches on several data are independent.
        seed: of the search.
        index: of the trial; 0 is the default.
    """
    if index == 0:
        return {one.name: float(one.default or 0.0) for one in TUNED} | {"label_smoothing": 0.0}
    rng = np.random.default_rng(derive_seed(seed, "tuning", name, index))
    values = {one.name: one.at(float(rng.uniform())) for one in TUNED}
    for off in ("dropout", "noise"):
        values[off] *= float(rng.uniform() < 0.5)
    return values | {"label_smoothing": LABEL_SMOOTHING * float(rng.uniform() < 0.5)}


def mean_passes() -> float:
    """Return the passes over the training split that a whole search makes on average."""
    low, high = next(one.range for one in TUNED if one.name == "length")
    return LONGEST * (1 + (TRIALS - 1) * (high - low) / math.log(high / low))


def training_changes(values: dict[str, float], classification: bool) -> dict[str, Any]:
    """Return fields of `TrainConfig` for values that were drawn, all but the length.

    Args:
        values: see `draw`.
        classification: whether there are labels to smooth.
    """
    fixed = {name: values[name] for name in ("dropout", "noise") if values[name]}
    if values["label_smoothing"] and classification:
        fixed["label_smoothing"] = values["label_smoothing"]
    return {
        "regularizers": {
            name: {"learn": False, "value": value}
            for name, value in {"weight_decay": values["weight_decay"], **fixed}.items()
        },
        "optimizer": {"lr": values["learning_rate"], "schedule": "cosine"},
    }
