"""AdamW, as PyTorch has it."""

from __future__ import annotations

import torch
from torch import nn

from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers.base import OptimizerKind

__all__ = ["AdamW"]


class AdamW(OptimizerKind):
    """Weight decay is decoupled from the gradient.

    Source: Loshchilov and Hutter 2019, arXiv:1711.05101.
    """

    name = "adamw"
    options = frozenset({"beta2"})

    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer."""
        return torch.optim.AdamW(theta, lr=config.lr, betas=(0.9, config.beta2), weight_decay=weight_decay)
