"""What a kind of optimizer says of itself."""

from __future__ import annotations

from abc import ABC, abstractmethod
from pathlib import Path
from typing import Any, ClassVar

import torch
from torch import nn

from crossreg.services.training.optimizer_config import ResolvedOptimizer

__all__ = ["OptimizerKind"]


class OptimizerKind(ABC):
    """A kind of optimizer of theta that a configuration can name.

    Attributes:
        name: as it is named.
        options: the fields of `ResolvedOptimizer` that it reads beside learning rate and schedule.
        gradient_evaluations: how often a step evaluates the gradient; above 1 the step is given a closure.
        weight_decay: where none is given; None leaves it to the registry.
        takes_file: its name may go on with `:FILE`.
        has_step_sizes: how far it goes for a unit of gradient is known, which some estimators need.
        file: what its name goes on with; empty where it does not.
    """

    name: ClassVar[str]
    options: ClassVar[frozenset[str]] = frozenset()
    gradient_evaluations: ClassVar[int] = 1
    weight_decay: ClassVar[float | None] = None
    takes_file: ClassVar[bool] = False
    has_step_sizes: ClassVar[bool] = True

    def __init__(self, file: str = "") -> None:
        self.file = file

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

    def lr(self) -> float | None:
        """Return the learning rate where none is given; None takes that of the schedule."""
        return None

    def identity(self) -> dict[str, Any]:
        """Return what a checkpoint says of the optimizer beside its settings: a run goes on with the same alone."""
        return {"name": self.name}

    def artifacts(self) -> dict[str, Path]:
        """Return files that a run keeps, by their names there: all that it needs beside its settings."""
        return {}

    def notes(self, steps: int) -> list[str]:
        """Return what is said of it before a run of at most so many steps, a line each."""
        return []
