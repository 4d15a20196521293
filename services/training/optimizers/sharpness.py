"""SAM and GSAM, from AdamW and the `pytorch-optimizer` package: theta is asked to be good in a whole neighbourhood.

A step evaluates the gradient twice: at theta, and where theta is then moved to, uphill. The second is evaluated by a
closure (`crossreg.training.closure`). In a distributed run every gradient is averaged over the ranks before it is used,
so all ranks move theta alike, as one process with the whole batch would. Importing this needs the package.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytorch_optimizer
import torch
from torch import nn

__all__ = ["GSAM", "sam"]


def sam(theta: list[nn.Parameter], radius: float, **adamw: Any) -> torch.optim.Optimizer:
    """Return SAM: AdamW's step with the gradient at the worst point within a radius, to first order.

    Args:
        theta: what to train.
        radius: Euclidean distance over all of theta.
        adamw: arguments of `torch.optim.AdamW`.

    Source: Foret et al. 2021 (arXiv 2010.01412), equations 2 and 3.
    """
    return pytorch_optimizer.SAM(theta, torch.optim.AdamW, rho=radius, **adamw)


class GSAM(pytorch_optimizer.GSAM):
    """SAM that also lowers the surrogate gap: the loss at the worst point, less that at theta.

    It subtracts alpha times the part of theta's gradient that is orthogonal to the worst point's. The radius follows
    the learning rate, in proportion, down to zero with it.

    The package's own `step` is not used: it evaluates the model itself and knows nothing of autocast, it moves theta on
    every rank by that rank's gradient alone, and it pauses BatchNorm by a momentum of zero, which still counts batches.

    Args:
        theta: what to train.
        radius: Euclidean distance over all of theta, at the initial learning rate.
        alpha: weight of the gap.
        adamw: arguments of `torch.optim.AdamW`.

    Source: Zhuang et al. 2022 (arXiv 2203.08065), algorithm 1, with the smallest radius and learning rate zero.
    """

    def __init__(self, theta: list[nn.Parameter], radius: float, alpha: float, **adamw: Any) -> None:
        base = torch.optim.AdamW(theta, **adamw)
        # the model would only be used by the package's own step
        super().__init__(theta, base, nn.Module(), _ProportionalRadius(base, radius), alpha=alpha)

    @torch.no_grad()
    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; gradients at theta are there, and the closure evaluates them anew."""
        if closure is None:
            raise ValueError("GSAM evaluates the gradient twice; call step with a closure")
        self.update_rho_t()
        self.perturb_weights(self.rho_t)
        loss = closure()
        self.gradient_decompose(self.alpha)
        self.un_perturb()
        self.base_optimizer.step()
        self.state.clear()  # the first gradient, which no later step needs and no checkpoint should hold
        return loss


class _ProportionalRadius:
    """The package's radius schedule, kept in the learning rate, so that it has no state to lose on resume."""

    def __init__(self, base: torch.optim.Optimizer, radius: float) -> None:
        self.base, self.radius = base, radius

    def step(self) -> float:
        group = self.base.param_groups[0]
        return float(self.radius * group["lr"] / group.get("initial_lr", group["lr"]))
