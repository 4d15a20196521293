"""What a kind of optimizer says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import ClassVar

import torch
from torch import nn

from services.training.optimizer_config import ResolvedOptimizer

__all__ = ["OptimizerKind"]


class OptimizerKind(ABC):
    """A kind of optimizer of theta that a configuration can name.

    Attributes:
        name: as it is named.
        options: the fields of `ResolvedOptimizer` that it reads beside learning rate and schedule.
        gradient_evaluations: how often a step evaluates the gradient; above 1 the step is given a closure.
        weight_decay: where none is given; None leaves it to the registry.
    """

    name: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()
    gradient_evaluations: ClassVar[int] = 1
    weight_decay: ClassVar[float | None] = None

    @abstractmethod
    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer.

        Args:
            config: its settings.
            theta: what it trains.
            weight_decay: as the optimizer takes it.
            steps: theta steps of the whole run.
        """
