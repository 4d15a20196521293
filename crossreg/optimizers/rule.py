"""What a learned update rule is: a small function, the same for every coordinate, of what its gradients were."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from typing import ClassVar

import torch
from torch import Tensor

from crossreg.optimizers.layout import Layout

__all__ = ["UpdateRule", "Weights", "linear"]

Weights = Mapping[str, Tensor]
"""The meta-parameters of a rule by name: what meta-training learns."""


class UpdateRule(ABC):
    """A form of update rule; its weights are kept apart, so that one can be differentiated in them.

    Attributes:
        name: as files and flags have it.
        features: number of the features' definition; a file made with another is refused.
        memory: numbers that it keeps for every coordinate.
        lr: learning rate it is meta-trained with unless another is given.
    """

    name: ClassVar[str]
    features: ClassVar[int]
    memory: ClassVar[int]
    lr: ClassVar[float]

    @abstractmethod
    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return weights to start meta-training from, float32."""

    @abstractmethod
    def update(
        self, weights: Weights, memory: Tensor, gradient: Tensor, theta: Tensor, step: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Return a direction, which is to be subtracted times the learning rate, and what is kept.

        Nothing is changed in place, so that it can be differentiated and batched by `torch.func.vmap`. `*` stands for
        several trainings of one layout at the same time; there may be no such dimension.

        Args:
            weights: of the rule.
            memory: `[memory, *, P]`; zeros before the first step.
            gradient: `[*, P]`.
            theta: `[*, P]`, where the gradient was taken.
            step: from 1; a scalar, or `[*, 1]`.
            layout: of the P coordinates.

        Returns:
            The direction `[*, P]`, and the new memory `[memory, *, P]`.
        """

    def zeros(self, theta: Tensor) -> Tensor:
        """Return the memory before the first step, `[memory, *, P]` for theta `[*, P]`."""
        return theta.new_zeros(self.memory, *theta.shape)


def linear(weight: Tensor, x: Tensor) -> Tensor:
    """Return `weight` `[m, n]` times `x` `[n, ...]`, `[m, ...]`."""
    return (weight @ x.flatten(1)).unflatten(1, x.shape[1:])
