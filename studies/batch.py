"""Inputs with their targets, and the loss of a linear model on them."""

from __future__ import annotations

from torch import Tensor

__all__ = ["Batch", "half_mse"]

Batch = tuple[Tensor, Tensor]
"""Inputs and targets of some examples, `(x [n, ...], y [n, ...])`; also a whole split."""


def half_mse(weights: Tensor, batch: Batch) -> float:
    """Return half the mean squared error of a linear model.

    Args:
        weights: `[d, 1]`.
        batch: `(x [n, d], y [n, 1])`.
    """
    return float(0.5 * (batch[0] @ weights - batch[1]).square().mean())
