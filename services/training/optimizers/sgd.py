"""Stochastic gradient descent, as PyTorch has it."""

from __future__ import annotations

import torch
from torch import nn

from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers.base import OptimizerKind

__all__ = ["SGD"]


class SGD(OptimizerKind):
    """Momentum 0.9; weight decay is added to the gradient."""

    name = "sgd"
    weight_decay = 5e-4  # the usual one; AdamW's are of another kind

    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.SGD(theta, lr=config.lr, momentum=0.9, weight_decay=weight_decay)
