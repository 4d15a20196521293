"""What a gradient estimator is."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from torch import Tensor, nn

from crossreg.losses import Loss
from crossreg.regularizers.noise import Draw

__all__ = ["Estimator", "passes"]

Estimator = Callable[
    [nn.Module, Loss, Any, Tensor, Sequence[nn.Parameter], Sequence[Draw], float], tuple[Tensor, list[Tensor]]
]
"""`(model, loss, inputs, target, rho, draws, scale) -> (reg loss, gradient of each rho)`: what an estimator is.

One that is an object may have `set_update(number)`, called before each update with its number from 1, and
`passes(samples)`, see `passes`.
"""


def passes(estimator: Estimator, samples: int) -> tuple[int, int]:
    """Return how many times an update with K noise draws takes its batch forward and backward.

    Args:
        estimator: what its own method `passes(samples)` returns counts; without one it counts as `direct_gradient`.
        samples: noise draws, K.
    """
    own = getattr(estimator, "passes", None)
    return own(samples) if own else (2 * samples - 1, samples)
