"""What a training reached and what it cost: the same for a worker, the driver and a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from pydantic import BaseModel, ConfigDict
from torch import Tensor

from crossreg.prediction import calibration
from crossreg.regularizers.registry import get_hyperparameters
from crossreg.training.compute import Cost
from crossreg.training.trainer import Trainer

__all__ = ["Predictions", "TrainingResult", "calibrated", "predictions_of", "result_of"]

Predictions = dict[str, dict[str, Tensor]]
"""By split: `mean` `[N, ...]`, averaged over draws, and `targets` `[N, ...]`."""


class TrainingResult(BaseModel):
    """What a training reached and what it cost.

    Attributes:
        test: scores of noise-averaged predictions on the test split.
        test_scaled: the same after temperature scaling on the regularization split; empty without one.
        temperature: the fitted temperature; NaN without one.
        reg: scores on the regularization split; empty without one.
        regularizers: every hyperparameter's value at the end, by its name.
        learned: names of those that were learned.
        cost: all that it took.
        peak_memory_bytes: of the worker that used most.
        reliability: bins of the reliability diagram on the test split: confidence, accuracy, count, edges, ece.
        steps: training steps done.
        stopped: why training ended where it did; empty where it ended after all steps that it was given.
    """

    model_config = ConfigDict(ser_json_inf_nan="constants")

    test: dict[str, float]
    test_scaled: dict[str, float] = {}
    temperature: float = math.nan
    reg: dict[str, float] = {}
    regularizers: dict[str, float] = {}
    learned: list[str] = []
    cost: Cost = Cost()
    peak_memory_bytes: int = 0
    reliability: dict[str, Any] = {}
    steps: int = 0
    stopped: str = ""


def result_of(trainer: Trainer) -> TrainingResult:
    """Return what a training that has ended reached."""
    assert trainer.ledger is not None
    return TrainingResult(
        test=dict(trainer.evaluated["test"].scores),
        reg=dict(trainer.evaluated["reg"].scores) if "reg" in trainer.evaluated else {},
        regularizers=get_hyperparameters(trainer.model, trainer.optimizer),
        learned=list(trainer.regularizer.hyperparameters) if trainer.regularizer else [],
        cost=trainer.ledger.cost,
        peak_memory_bytes=trainer.ledger.peak_memory_bytes,
        steps=trainer.step,
        stopped=_why(trainer),
        **calibrated(_as_judged(trainer)),
    )


def _as_judged(trainer: Trainer) -> Predictions:
    """Return the last predictions; of a found length without those that its temperature was fitted on already."""
    found = predictions_of(trainer)
    if trainer.course is not None and trainer.course.cooling:
        found.pop(trainer.course.held_out, None)
    return found


def _why(trainer: Trainer) -> str:
    if trainer.stopped:
        return trainer.stopped.reason
    return trainer.course.reason() if trainer.course else ""


def predictions_of(trainer: Trainer) -> Predictions:
    """Return the averaged predictions of the last evaluation, by split."""
    return {
        split: {"mean": result.mean, "targets": result.targets}
        for split, result in trainer.evaluated.items()
        if result.mean.ndim >= 1
    }


def calibrated(predictions: Mapping[str, Mapping[str, Tensor]]) -> dict[str, Any]:
    """Return what predictions say of calibration: `reliability`, `test_scaled` and `temperature`, where they can."""
    found: dict[str, Any] = {}
    test, reg = predictions["test"], predictions.get("reg")
    if not are_probabilities(test):  # numbers, or those of a model that diverged
        return found
    found["reliability"] = calibration.reliability(test["mean"], test["targets"]).as_dict()
    if reg is not None and are_probabilities(reg):
        scaled, temperature = calibration.temperature_scaled(test["mean"], test["targets"], reg["mean"], reg["targets"])
        found |= {"test_scaled": scaled.as_dict(), "temperature": temperature}
    return found


def are_probabilities(split: Mapping[str, Tensor]) -> bool:
    """Say whether predictions are class probabilities that can be scored."""
    mean, targets = split["mean"], split["targets"]
    return mean.ndim == 2 and not targets.is_floating_point() and bool(mean.isfinite().all())
