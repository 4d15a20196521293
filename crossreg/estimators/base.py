"""What a gradient estimator is."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from crossreg.losses import Loss
from crossreg.regularizers.noise import Draw

__all__ = ["Estimator"]


class Estimator(ABC):
    """Estimates the gradient of the held-out loss in rho.

    Attributes:
        needs_training_data: it differentiates the training objective too, and so follows theta's response to rho.
        optimizer: of theta, for an estimator that takes its step sizes.
    """

    needs_training_data: ClassVar[bool] = False
    optimizer: torch.optim.Optimizer | None = None

    @abstractmethod
    def gradient(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Any,
        target: Tensor,
        rho: Sequence[nn.Parameter],
        draws: Sequence[Draw],
        scale: float = 1.0,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the held-out loss and its gradient in rho.

        Args:
            model: the unwrapped model; theta, its gradients and the running statistics stay untouched.
            loss: see `crossreg.losses`.
            inputs: one held-out batch, as the model takes it.
            target: its targets, `[B, ...]`.
            rho: parameters to differentiate by; one that the loss does not depend on gets a zero gradient.
            draws: the noise draws; K is their number.
            scale: factor on the gradient against float16 underflow (see `torch.amp.GradScaler`).

        Returns:
            The detached scalar loss, and one tensor a rho of its shape and dtype, multiplied by `scale`.
        """

    @abstractmethod
    def passes(self, samples: int) -> tuple[int, int]:
        """Return how many times an update with K noise draws takes a regularization batch forward and backward."""

    def set_update(self, update: int) -> None:  # noqa: B027 - most have nothing that depends on it
        """Take note of the number of the next update, from 1."""

    def on(self, x: Tensor, y: Tensor) -> Self:
        """Return the same estimator with one given training batch, to count its operations."""
        return self
