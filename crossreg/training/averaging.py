"""Averaged weights: what a training at a constant learning rate is worth at any moment, without waiting for its end."""

from __future__ import annotations

from functools import partial
from typing import Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap

__all__ = ["averaged"]


def averaged(model: nn.Module, power: int = 9) -> AveragedModel:
    """Return a copy of a model that averages its weights and running statistics: call `update_parameters` every step.

    The average reaches back over about the last tenth of the steps, however many there were: step t counts
    (t / n)^power by step n. A memory of so many steps would be too long for short trainings, or too short for long
    ones.

    Args:
        model: wrapped or not.
        power: the larger, the less far it reaches back: over about 1 / (power + 1) of the steps.

    Raises:
        UserError: a model that cannot be copied.

    Source: polynomial-decay averaging, Shamir and Zhang 2013, arXiv:1212.1824.
    """
    try:
        copy = AveragedModel(unwrap(model), multi_avg_fn=partial(_average, power), use_buffers=True)
    except RuntimeError as error:  # weights computed from others
        raise UserError(
            f"{type(unwrap(model)).__name__} cannot be copied, so its weights cannot be averaged: {error}; use "
            "optimizer.schedule cosine"
        ) from error
    return copy.eval().requires_grad_(False)


@torch.no_grad()
def _average(power: int, averages: Any, now: Any, count: Tensor | int) -> None:
    """Take a step's weights into the averages; `count` of them are in."""
    share = (power + 1) / (float(count) + power + 1)
    if averages[0].is_floating_point():
        torch._foreach_lerp_(averages, now, share)
    else:  # counters
        for average, value in zip(averages, now, strict=True):
            average.copy_(value)
