"""What a person tunes who trains a network: learning rate, length and what regularizes, over published ranges.

A search over a *space* (`services.search.space`) looks through what the cross-regularized run learns. This one is what
a tuned search is held to be otherwise: every draw is a training of its own, the first of them the default.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from crossreg.core.random import derive_seed
from crossreg.regularizers.base import Hyperparameter

__all__ = ["LABEL_SMOOTHING", "LEARNING_RATE", "LENGTH", "TUNED", "draw", "training_changes"]

LEARNING_RATE = Hyperparameter(
    "learning_rate",
    help="learning rate of the weights, at the start of its schedule",
    unit="as the optimizer takes it",
    default=1e-3,
    range=(10**-3.5, 1e-2),
    learned_by_rho=False,
)
LENGTH = Hyperparameter(
    "length",
    help="length of the training",
    unit="share of the epochs given",
    default=1.0,
    range=(1 / 8, 1.0),
    learned_by_rho=False,
)
WEIGHT_DECAY = Hyperparameter(
    "weight_decay", help="of the optimizer", unit="as it takes it", default=0.01, range=(1e-3, 1.0),
    learned_by_rho=False,
)  # fmt: skip
DROPOUT = Hyperparameter(
    "dropout", help="probability of every dropout layer; half of the draws have none", unit="probability", default=0.0,
    range=(0.0, 0.6), scale="linear", learned_by_rho=False,
)  # fmt: skip
NOISE = Hyperparameter(
    "noise", help="noise after normalization; half of the draws have none", unit="standard deviations", default=0.0,
    range=(0.01, 2.0),
)  # fmt: skip
LABEL_SMOOTHING = 0.1
"""Of half of the draws; the others have none."""

TUNED = (LEARNING_RATE, LENGTH, WEIGHT_DECAY, DROPOUT, NOISE)


def draw(seed: int, index: int) -> dict[str, float]:
    """Return what a trial is trained with; the same for the same seed and index whoever asks.

    Args:
        seed: of the search.
        index: of the trial; 0 is the default.
    """
    if index == 0:
        return {one.name: float(one.default or 0.0) for one in TUNED} | {"label_smoothing": 0.0}
    rng = np.random.default_rng(derive_seed(seed, "tuning", index))
    values = {one.name: one.at(float(rng.uniform())) for one in TUNED}
    for name in ("dropout", "noise"):
        values[name] *= float(rng.uniform() < 0.5)
    return values | {"label_smoothing": LABEL_SMOOTHING * float(rng.uniform() < 0.5)}


def training_changes(values: dict[str, float], steps: int, *, classification: bool, noise: bool) -> dict[str, Any]:
    """Return fields of `TrainConfig` for values that were drawn.

    Args:
        values: see `draw`.
        steps: of the whole length.
        classification: whether there are labels to smooth.
        noise: whether the model has normalization layers that noise could follow.
    """
    regularizers: dict[str, Any] = {"weight_decay": {"value": values["weight_decay"]}}
    if values["dropout"]:
        regularizers["dropout"] = {"value": values["dropout"]}
    if values["noise"] and noise:
        regularizers["noise"] = {"learn": False, "value": values["noise"]}
    if values["label_smoothing"] and classification:
        regularizers["label_smoothing"] = {"learn": False, "value": values["label_smoothing"]}
    return {
        "regularizers": regularizers,
        "optimizer": {"lr": values["learning_rate"]},
        "steps": max(1, round(values["length"] * steps)),
    }
