"""Sharpness-aware minimization, as kinds of optimizers; the optimizers themselves need a package, see `sharpness`."""

from __future__ import annotations

from types import ModuleType

import torch
from torch import nn

from crossreg.core.errors import UserError
from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers.base import OptimizerKind

__all__ = ["GSAM", "SAM"]


class SAM(OptimizerKind):
    """AdamW's step with the gradient at the worst point within a radius."""

    name = "sam"
    options = frozenset({"radius"})
    gradient_evaluations = 2

    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer.

        Raises:
            UserError: the package that holds it is not installed.
        """
        optimizer: torch.optim.Optimizer = self._package().sam(
            theta, config.radius, lr=config.lr, weight_decay=weight_decay
        )
        return optimizer

    def _package(self) -> ModuleType:
        try:
            from crossreg.services.training.optimizers import sharpness
        except ImportError as error:
            raise UserError(
                f"optimizer {self.name!r} needs the package pytorch-optimizer, which cannot be imported ({error}); "
                "install it with: pip install 'crossreg[baselines]'"
            ) from error
        return sharpness


class GSAM(SAM):
    """SAM that also lowers the surrogate gap."""

    name = "gsam"
    options = frozenset({"radius", "surrogate_gap"})

    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer."""
        optimizer: torch.optim.Optimizer = self._package().GSAM(
            theta, config.radius, config.surrogate_gap, lr=config.lr, weight_decay=weight_decay
        )
        return optimizer
