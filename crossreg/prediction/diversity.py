"""What the members of an ensemble reach alone, and how much they differ."""

from __future__ import annotations

import itertools
import math
import statistics
from dataclasses import dataclass

import torch
from torch import Tensor

from crossreg.prediction import calibration

__all__ = ["Alone", "Diversity", "best_alone", "diversity"]


@dataclass(frozen=True)
class Diversity:
    """Members of an ensemble, on one split.

    Attributes:
        scores: of each member alone: accuracy and nll, or rmse.
        disagreement: mean over pairs: the share of examples on which two members' classes differ, or the root mean
            square of the difference of two members' numbers.
        error_correlation: mean over pairs: correlation of where two members err, 1 or 0 an example, or of their signed
            errors; NaN where a member errs always or never.
    """

    scores: list[dict[str, float]]
    disagreement: float
    error_correlation: float


def diversity(members: Tensor, targets: Tensor) -> Diversity:
    """Return what members reach alone and how much they differ.

    Args:
        members: predictions of each, `[M, N, C]` probabilities, or `[M, N, outputs]` numbers, M at least 2.
        targets: `[N]` classes, int64, or `[N, outputs]` numbers.

    Source: Kuncheva and Whitaker 2003, Machine Learning 51:181 (disagreement, correlation).
    """
    if targets.is_floating_point():
        errors = members.double() - targets.double().reshape(members.shape[1:])
        scores = [{"rmse": float(error.square().mean().sqrt())} for error in errors]
        wrong = errors.flatten(1)
        apart = [float((a - b).square().mean().sqrt()) for a, b in itertools.combinations(wrong, 2)]
    else:
        found = [calibration.score(member, targets) for member in members]
        scores = [{"accuracy": one.accuracy, "nll": one.nll} for one in found]
        classes = members.argmax(2)
        wrong = (classes != targets).double()
        apart = [float((a != b).double().mean()) for a, b in itertools.combinations(classes, 2)]
    correlations = [_correlation(a, b) for a, b in itertools.combinations(wrong, 2)]
    return Diversity(scores, statistics.mean(apart), statistics.mean(correlations))


@dataclass(frozen=True)
class Alone:
    """The member that would be taken if there could be one only.

    Attributes:
        member: its number.
        temperature: that its own predictions need; of numbers the standard deviation of an observation.
    """

    member: int
    temperature: float


def best_alone(members: Tensor, targets: Tensor, temperature: float) -> Alone:
    """Return the member with the lowest loss after temperature scaling of its own.

    Args:
        members: predictions of each on held-out examples, as in `diversity`; finite.
        targets: likewise.
        temperature: that these predictions have already.
    """
    if targets.is_floating_point():
        rmse = [
            math.sqrt(float((one.double() - targets.double().reshape(one.shape)).square().mean())) for one in members
        ]
        best = min(range(len(rmse)), key=rmse.__getitem__)
        return Alone(best, calibration.fit_deviation(rmse[best], targets.numel(), calibration.TEMPERATURE_PRIOR))
    losses, factors = [], []
    for one in members:
        logs = calibration.log_probabilities(one)
        factors.append(calibration.fit_temperature(logs, targets, prior=calibration.TEMPERATURE_PRIOR))
        losses.append(calibration.nll(calibration.apply_temperature(logs, factors[-1]), targets))
    best = min(range(len(losses)), key=losses.__getitem__)
    return Alone(best, temperature * factors[best])


def _correlation(a: Tensor, b: Tensor) -> float:
    if float(a.std()) == 0 or float(b.std()) == 0:
        return math.nan
    return float(torch.corrcoef(torch.stack([a, b]))[0, 1])
