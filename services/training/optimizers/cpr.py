"""Constrained parameter regularization: AdamW that bounds the norm of every weight matrix."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from typing import Any

import torch
from torch import nn

from crossreg.core.errors import UserError
from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers.base import OptimizerKind

__all__ = ["CPR", "AdamCPR"]


class AdamCPR(torch.optim.AdamW):
    """AdamW that keeps the squared norm of every weight matrix below a bound of its own, after a warm start.

    After Adam's step t, for every parameter theta of two or more dimensions (no biases, no normalization layers):

        t = T_warm:  kappa  = ||theta||^2
        t > T_warm:  lambda = max(0, lambda + mu (||theta||^2 - kappa)),    theta = theta - 2 lambda theta

    with mu = `kappa_update` / (number of values in theta). The learning rate does not scale the pull of lambda. Bounds
    and multipliers are in the state of the optimizer, so they are saved and restored with it.

    Source: Franke et al. 2024 (arXiv 2311.09058), algorithm 1 with the L2 measure and the warm start (kappa-WS);
    constants as in the authors' package pytorch-cpr 0.3.1. That package is not used: its default, the inflection
    point, never sets a bound on CPUs (one branch looks for 1000 where the other wrote 1e6), and given parameters
    instead of a model it constrains nothing.

    Args:
        params: parameters or parameter groups.
        lr: learning rate.
        warm_start: steps before the bounds are set, T_warm >= 1.
        kappa_update: how fast a multiplier follows the excess of its measure.
        weight_decay: of AdamW, beside the bounds; the method replaces it, so 0.
        options: other arguments of `torch.optim.AdamW`.

    Raises:
        UserError: `warm_start` below 1 or `kappa_update` not positive.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        lr: float = 1e-3,
        *,
        warm_start: int,
        kappa_update: float = 1.0,
        weight_decay: float = 0.0,
        **options: Any,
    ) -> None:
        if warm_start < 1:
            raise UserError(f"warm_start is {warm_start}; it must be at least 1 step")
        if not kappa_update > 0:
            raise UserError(f"kappa_update is {kappa_update}; it must be positive")
        super().__init__(params, lr=lr, weight_decay=weight_decay, **options)
        self.warm_start, self.kappa_update = warm_start, kappa_update

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take Adam's step, then pull back what is beyond its bound."""
        loss = super().step(closure)
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.ndim >= 2 and parameter.grad is not None:
                    self._constrain(parameter)
        return loss

    @torch.no_grad()
    def _constrain(self, theta: nn.Parameter) -> None:
        state = self.state[theta]
        measure = theta.square().sum()
        if "kappa" in state:
            excess = measure - state["kappa"]
            multiplier = state["multiplier"].add_(excess, alpha=self.kappa_update / theta.numel()).clamp_(min=0)
            theta.mul_(1 - 2 * multiplier)
        elif state["step"] >= self.warm_start:  # later than it where a resumed run is longer and its warm start too
            state["kappa"], state["multiplier"] = measure, torch.zeros_like(measure)


class CPR(OptimizerKind):
    """`AdamCPR`, whose warm start is a share of the steps (the authors give 1,000 steps for CIFAR-100)."""

    name = "cpr"
    options = frozenset({"kappa_after", "kappa_update"})
    weight_decay = 0.0  # the bounds take its place

    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer."""
        warm_start = max(1, math.ceil(config.kappa_after * steps))
        return AdamCPR(
            theta, config.lr, warm_start=warm_start, kappa_update=config.kappa_update, weight_decay=weight_decay
        )
