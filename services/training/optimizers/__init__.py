"""The optimizer of theta that a configuration names."""

from __future__ import annotations

import math

import torch
from torch import nn

from services.training.optimizers.cpr import AdamCPR
from crossreg.core.errors import UserError
from services.training.config import OptimizerConfig

__all__ = ["build_optimizer"]


def build_optimizer(config: OptimizerConfig, theta: list[nn.Parameter], steps: int) -> torch.optim.Optimizer:
    """Return the optimizer.

    Args:
        config: which one, and its options.
        theta: what it trains.
        steps: theta steps of the whole run.

    Raises:
        UserError: the package that holds it is not installed.
    """
    lr, weight_decay = config.lr, config.weight_decay
    if config.name == "sgd":
        return torch.optim.SGD(theta, lr=lr, momentum=0.9, weight_decay=weight_decay)
    if config.name == "cpr":
        warm_start = max(1, math.ceil(config.kappa_after * steps))
        return AdamCPR(theta, lr, warm_start=warm_start, kappa_update=config.kappa_update, weight_decay=weight_decay)
    if config.name == "adamw":
        return torch.optim.AdamW(theta, lr=lr, weight_decay=weight_decay)
    try:
        from services.training.optimizers.sharpness import GSAM, sam
    except ImportError as error:
        raise UserError(
            f"optimizer {config.name!r} needs the package pytorch-optimizer, which cannot be imported ({error}); "
            "install it with: pip install 'crossreg[baselines]'"
        ) from error
    if config.name == "sam":
        return sam(theta, config.radius, lr=lr, weight_decay=weight_decay)
    return GSAM(theta, config.radius, config.surrogate_gap, lr=lr, weight_decay=weight_decay)
