"""The gradient through s steps of theta, the held-out prediction included.

    theta_{j+1} = theta_j - P g_j(theta_j, rho),   g_j = partial C1 / partial theta on the j-th training batch
    d C2(theta_s(rho), rho) / d rho

P holds the step sizes of theta's own optimizer, as constants. With s = 1 this is T1-T2 with the optimizer's steps and
with what rho does to the held-out prediction itself. It is short-sighted: it sees what s steps make of rho, not what
the rest of the training does (Wu et al. 2018, arXiv:1803.02021).

Source: Luketina et al. 2016, arXiv:1511.06727; Franceschi et al. 2017, arXiv:1703.01785.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from crossreg.batches import Batches
from crossreg.core.errors import UserError
from crossreg.core.random import forked_rng
from crossreg.estimators.direct import Direct
from crossreg.estimators.hypergradient import (
    HypergradientEstimator,
    theta_of,
    training_gradient,
    training_mode_with_rho_grad,
    twice_differentiable,
)
from crossreg.losses import Loss
from crossreg.regularizers.noise import Draw

__all__ = ["Unrolled"]


class Unrolled(HypergradientEstimator):
    """Differentiates s steps of theta; holds their graphs, s times the activations of a training step.

    Args:
        train: batches of the training split, in an order of their own; s of them are taken in an update.
        optimizer: of theta, whose step sizes are used; it may be set later, since it is made of
            `CrossRegularizer.theta`.
        steps: s.

    Raises:
        UserError: fewer than one step; in an update, no optimizer.
    """

    def __init__(self, train: Batches, optimizer: torch.optim.Optimizer | None = None, steps: int = 1) -> None:
        super().__init__(train, optimizer)
        if steps < 1:
            raise UserError(f"steps is {steps!r}; it must be at least 1")
        self.steps = steps

    def passes(self, samples: int) -> tuple[int, int]:
        """Return forward and backward passes of an update, in regularization batches.

        Those of the direct gradient; in each step one forward, its backward, and the backward of that.
        """
        return 2 * samples - 1 + self.steps, samples + 3 * self.steps

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
        """Return the held-out loss after s steps and its gradient in rho.

        Args:
            model: the unwrapped model; theta, its gradients and the running statistics stay untouched.
            loss: see `crossreg.losses`.
            inputs: one held-out batch, as the model takes it.
            target: its targets, `[B, ...]`.
            rho: parameters to differentiate by.
            draws: the noise draws of the held-out prediction; the steps take them in turn.
            scale: factor on the gradient (see `torch.amp.GradScaler`).

        Returns:
            The detached scalar loss, and one tensor a rho of its shape and dtype, multiplied by `scale`.

        Raises:
            UserError: no optimizer, or a model that cannot be differentiated twice.
        """
        device, theta = target.device, theta_of(model)
        sizes = self.step_sizes(list(theta.values()))
        ahead: dict[str, Tensor] = {name: weight.detach().requires_grad_() for name, weight in theta.items()}
        with forked_rng(device), training_mode_with_rho_grad(model, rho), twice_differentiable(device):
            for step in range(self.steps):
                x, y = self.batch((self._update - 1) * self.steps + step)
                gradient = training_gradient(model, loss, x, y, ahead, [draws[step % len(draws)]])
                ahead = {
                    name: weight if g is None else weight - size * g
                    for (name, weight), size, g in zip(ahead.items(), sizes, gradient, strict=True)
                }
        with _at(theta, ahead):
            value, slopes = Direct().gradient(model, loss, inputs, target, [*rho, *theta.values()], draws, scale)
        total, slope = slopes[: len(rho)], slopes[len(rho) :]
        pairs = [(weight, v) for weight, v in zip(ahead.values(), slope, strict=True) if weight.grad_fn is not None]
        if pairs:
            weights, cotangents = zip(*pairs, strict=True)
            flags = [parameter.requires_grad for parameter in rho]
            for parameter in rho:
                parameter.requires_grad_(True)
            through = torch.autograd.grad(weights, list(rho), cotangents, allow_unused=True)
            for parameter, flag in zip(rho, flags, strict=True):
                parameter.requires_grad_(flag)
            for accumulated, by_theta in zip(total, through, strict=True):
                if by_theta is not None:
                    accumulated += by_theta
        return value, total


@contextmanager
def _at(theta: Mapping[str, nn.Parameter], values: Mapping[str, Tensor]) -> Iterator[None]:
    """Give theta other values for a while; its own tensors come back untouched."""
    own = {name: parameter.data for name, parameter in theta.items()}
    for name, parameter in theta.items():
        parameter.data = values[name].detach()
    try:
        yield
    finally:
        for name, parameter in theta.items():
            parameter.data = own[name]
