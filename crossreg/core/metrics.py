"""The metric keys, the same in the library, Ray, MLflow and every report."""

from __future__ import annotations

from collections.abc import Iterable

__all__ = [
    "COMPUTE_PEAK_MEMORY",
    "COURSE_HELD_OUT",
    "COURSE_KEPT_STEP",
    "EPOCH",
    "LEARNING_RATE",
    "META_DIVERGED",
    "META_GRADIENT_NORM",
    "META_LOSS",
    "PERFORMANCE_EXAMPLES_PER_SECOND",
    "compute",
    "hyperparameter",
    "hyperparameters_in",
    "meta_loss_by_age",
    "meta_loss_to",
    "scores",
]

EPOCH = "epoch"
LEARNING_RATE = "theta/learning_rate"
COMPUTE_PEAK_MEMORY = "usage/peak_memory_bytes"
PERFORMANCE_EXAMPLES_PER_SECOND = "usage/examples_per_second"

COURSE_HELD_OUT = "course/held_out"
"""What decides how long to train: the held-out NLL after temperature scaling; of numbers their mean squared error."""
COURSE_KEPT_STEP = "course/kept_step"

META_LOSS = "meta/loss"
"""Of meta-training: the mean logarithm of the meta-loss."""
META_DIVERGED = "meta/diverged"
"""Of meta-training: the share of inner trainings that were ended for their loss."""
META_GRADIENT_NORM = "meta/gradient_norm"

_HYPERPARAMETER = "regularizers/"


def scores(split: str, values: dict[str, float]) -> dict[str, float]:
    """Prefix scores with their split: `{"accuracy": .9}` of `"test"` becomes `{"test/accuracy": .9}`."""
    return {f"{split}/{name}": value for name, value in values.items()}


def compute(unit: str) -> str:
    """Return the key of what was spent, by the name of a field of `crossreg.training.compute.Cost`.

    MLflow shows sections in the order of the alphabet, and these lines are what one looks at last.
    """
    return f"usage/{unit}"


def hyperparameter(name: str) -> str:
    """Return the key of a hyperparameter's value: `regularizers/l2`, `regularizers/noise/00_norm1`.

    As in a configuration file, it stands below `regularizers`.
    """
    return _HYPERPARAMETER + name


def hyperparameters_in(values: dict[str, float]) -> dict[str, float]:
    """Return the hyperparameters among metrics, by their own names."""
    return {
        key.removeprefix(_HYPERPARAMETER): value for key, value in values.items() if key.startswith(_HYPERPARAMETER)
    }


def meta_loss_to(age: int) -> str:
    """Return the key of the meta-loss of inner trainings up to an age in steps: `meta/loss/to_00200`."""
    return f"{META_LOSS}/to_{age:05d}"


def meta_loss_by_age(keys: Iterable[str]) -> dict[int, str]:
    """Return the keys among these that `meta_loss_to` makes, by age, the youngest first."""
    start = f"{META_LOSS}/to_"
    return {int(key.removeprefix(start)): key for key in sorted(keys) if key.startswith(start)}
