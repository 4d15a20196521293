"""What a training reached and what it cost: the same for a worker, the driver and a comparison."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import BaseModel
from torch import Tensor

from crossreg.core.modules import unwrap
from crossreg.prediction import calibration
from crossreg.prediction.diversity import best_alone, diversity
from crossreg.regularizers.registry import get_hyperparameters
from crossreg.regularizers.temperature import temperature
from crossreg.services.settings import NullIsNan, Scores
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
        networks: scores of each network of an ensemble alone on the test split; empty for one network.
        disagreement: of these, see `crossreg.prediction.diversity`; NaN for one network.
        error_correlation: likewise.
        alone: of these, the `member` that was best on held-out data and the `temperature` that it needs.
        steps: training steps done.
        stopped: why training ended where it did; empty where it ended after all steps that it was given.
    """

    test: Scores
    test_scaled: Scores = {}
    temperature: Annotated[float, NullIsNan] = math.nan
    reg: Scores = {}
    regularizers: Scores = {}
    learned: list[str] = []
    cost: Annotated[Cost, NullIsNan] = Cost()
    peak_memory_bytes: int = 0
    reliability: Annotated[dict[str, Any], NullIsNan] = {}
    networks: list[Scores] = []
    disagreement: Annotated[float, NullIsNan] = math.nan
    error_correlation: Annotated[float, NullIsNan] = math.nan
    alone: Scores = {}
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
        **_apart(trainer),
    )


def _apart(trainer: Trainer) -> dict[str, Any]:
    """Return what the networks of an ensemble reach alone, and which of them is the best by itself."""
    test = trainer.evaluated["test"]
    if test.members is None or not bool(test.members.isfinite().all()):
        return {}
    found = diversity(test.members, test.targets)
    alone = trainer.course.alone() if trainer.course else None
    reg = trainer.evaluated.get("reg")
    if alone is None and reg is not None and reg.members is not None and bool(reg.members.isfinite().all()):
        alone = best_alone(reg.members, reg.targets, float(temperature(unwrap(trainer.model))))
    return {
        "networks": found.scores,
        "disagreement": found.disagreement,
        "error_correlation": found.error_correlation,
        "alone": {} if alone is None else dict(vars(alone)),
    }


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
