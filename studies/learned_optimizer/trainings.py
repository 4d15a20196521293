"""Trainings by learned and by other optimizers, alike but for what moves the weights; the library alone is needed."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crossreg.core.random import derive_seed
from crossreg.meta import MetaLoss, MetaTask
from crossreg.optimizers import LearnedOptimizer, LearnedRule
from crossreg.studies.learned_optimizer.measures import flatness
from crossreg.studies.learned_optimizer.scenes import BATCH, Examples

if TYPE_CHECKING:
    from crossreg.studies.study import Measurement

__all__ = ["OTHERS", "Optimizer", "learned", "trained"]

_FLATNESS_ROWS, _TRAIN_ROWS = 512, 2_000
_PROBES = 12
_WEIGHT_DECAY = 0.01

Optimizer = Callable[[list[nn.Parameter], float], torch.optim.Optimizer]
"""Makes an optimizer of parameters and a learning rate."""


def _adamw(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    return torch.optim.AdamW(parameters, lr=lr, weight_decay=_WEIGHT_DECAY)


_RATES = (1e-3, 3e-3, 1e-2, 3e-2, 1e-1)
OTHERS: dict[str, tuple[Optimizer, MetaLoss, tuple[float, ...]]] = {
    "sgd": (
        lambda parameters, lr: torch.optim.SGD(parameters, lr=lr, momentum=0.9, weight_decay=5e-4),
        MetaLoss(),
        (1e-2, 3e-2, 1e-1, 3e-1, 1.0),
    ),
    "adam": (lambda parameters, lr: torch.optim.Adam(parameters, lr=lr), MetaLoss(), _RATES),
    "adamw": (_adamw, MetaLoss(), _RATES),
    "sam": (_adamw, MetaLoss("sam"), _RATES),
    "gsam": (_adamw, MetaLoss("gsam"), _RATES),
}
"""Optimizers by name: how one is made, what it follows, and five learning rates to choose from."""


def learned(rule: LearnedRule) -> Optimizer:
    """Return how a learned optimizer is made."""
    return lambda parameters, lr: LearnedOptimizer(parameters, rule, lr, weight_decay=_WEIGHT_DECAY)


def trained(
    task: MetaTask,
    given: Examples,
    make: Optimizer,
    follows: MetaLoss,
    lr: float,
    steps: int,
    seed: int,
    *,
    flat: bool = False,
) -> Measurement:
    """Return what a training reaches, and how it got there.

    The learning rate falls to zero along a cosine. Networks with BatchNorm are judged with the statistics of the
    examples that they are judged on.

    Args:
        task: the network and its training examples.
        given: all examples.
        make: makes the optimizer.
        follows: what a step follows: the gradient, or SAM's and its kin.
        lr: learning rate at the start.
        steps: how many.
        seed: of weights and batches.
        flat: measure the flatness on the way.
    """
    start = task.initial(derive_seed("inner weights", seed))
    parameters = [nn.Parameter(part.clone()) for part in task.layout.apart(start)]
    optimizer = make(parameters, lr)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    generator = torch.Generator().manual_seed(derive_seed("inner batches", seed))
    probes = {round(5 * (steps / 5) ** (index / (_PROBES - 1))) for index in range(_PROBES)} | {steps}
    found: Measurement = {"lr": lr, "steps": steps, "inner": seed}
    curve: list[dict[str, float]] = [{"step": 0, **_scores(task, given, start)}]

    def few(at: Tensor) -> Tensor:
        return task.value(at, given.x[:_FLATNESS_ROWS], given.y[:_FLATNESS_ROWS])

    for step in range(1, steps + 1):
        rows = torch.randint(0, len(given.x), (BATCH,), generator=generator).to(given.x.device)
        theta = task.layout.flat([one.detach() for one in parameters])
        x, y = given.x[rows], given.y[rows]
        _, slope = follows(lambda at, x=x, y=y: task.value(at, x, y), theta)  # type: ignore[misc]
        for parameter, part in zip(parameters, task.layout.apart(slope), strict=True):
            parameter.grad = part
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # beyond the horizon, or fallen back: both are counted
            optimizer.step()
        schedule.step()
        if step in probes:
            theta = task.layout.flat([one.detach() for one in parameters])
            scores = {"step": step, **_scores(task, given, theta)}
            if flat and math.isfinite(scores["train_loss"]):
                scores |= flatness(few, theta)
            curve.append(scores)
    return {
        **found,
        **{key: value for key, value in curve[-1].items() if key != "step"},
        "start_loss": curve[0]["train_loss"],
        "fallen_back": getattr(optimizer, "fallen_back", None),
        "curve": curve if flat else [],
    }


def _scores(task: MetaTask, given: Examples, theta: Tensor) -> dict[str, Any]:
    with torch.no_grad():
        weights = dict(zip(task.names, task.layout.apart(theta), strict=True))
        output = torch.func.functional_call(task.template, weights, (given.x_test,))
        return {
            "train_loss": float(task.value(theta, given.x[:_TRAIN_ROWS], given.y[:_TRAIN_ROWS])),
            "val_loss": float(task.value(theta, given.x_val, given.y_val)),
            "test_loss": float(task.loss(output, given.y_test)),
            "accuracy": float((output.argmax(1) == given.y_test).double().mean()),
            "norm": float(theta.norm()),
        }
