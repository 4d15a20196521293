"""T1-T2: rho follows the gradient of the held-out loss through one step of theta.

    theta' = theta - eta * g(theta, rho),     g = d C1~ / d theta        C1~: training loss, one noise draw
    d C2(theta') / d rho = -eta * (d C2 / d theta') . d g / d rho        C2: held-out loss, without noise

The product costs one backward pass through the graph of g, however many parameters theta has. What rho does to C2
itself, theta fixed, is added: nothing for noise, which C2 has none of, and all there is for the output temperature,
which theta's step does not feel.

Source: Luketina, Berglund, Greff, Raiko 2016, "Scalable Gradient-Based Tuning of Continuous Regularization
Hyperparameters" (ICML; arXiv:1511.06727).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossreg.batches import Batches
from crossreg.core.calling import arguments
from crossreg.core.errors import UserError
from crossreg.core.random import forked_rng
from crossreg.estimators.hypergradient import (
    HypergradientEstimator,
    theta_of,
    training_gradient,
    training_mode_with_rho_grad,
    twice_differentiable,
    vector_jacobian_product,
)
from crossreg.losses import Loss
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.temperature import temperature

__all__ = ["T1T2"]


class T1T2(HypergradientEstimator):
    """The gradient estimator of T1-T2, for `CrossRegularizer(..., estimator=T1T2(train))`.

    The gradient is that of the equation divided by eta: Adam-like optimizers of theta have no one eta, so the authors'
    code (github.com/jelennal/t1t2) takes 1 for the factor, and rho's Adam forgets it anyway. Signs and relative sizes
    are what counts. So eta only says where C2 is differentiated; as in their code that is theta itself by default,
    where the optimizer's own step has just ended, and a training batch of its own gives `d g / d rho` there.

    Args:
        train: batches of the training split, in an order of their own (another seed than theta's batches), of as many
            rows as those of the regularization split.
        eta: the step of theta before C2 is differentiated; 0, the default, is the limit of small steps.

    Raises:
        UserError: eta is negative.
    """

    def __init__(self, train: Batches, eta: float = 0.0) -> None:
        super().__init__(train)
        if not eta >= 0:
            raise UserError(f"eta is {eta!r}; it must not be negative")
        self.eta = eta

    def passes(self, samples: int) -> tuple[int, int]:
        """Return forward and backward passes of an update, in regularization batches; K plays no part.

        Forward the training and the regularization batch; backward both, and the training batch's backward pass itself.
        """
        return 2, 3

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
        """Return the noise-free loss of a held-out batch and its gradient in rho through a step of theta.

        Args:
            model: the unwrapped model; theta, its gradients and the running statistics stay untouched.
            loss: see `crossreg.losses`.
            inputs: one held-out batch, as the model takes it.
            target: its targets, `[B, ...]`.
            rho: parameters to differentiate by; one that nothing depends on gets a zero gradient.
            draws: the first is that of the training loss.
            scale: factor on the gradient (see `torch.amp.GradScaler`).

        Returns:
            The detached scalar loss, and one tensor a rho of its shape and dtype, multiplied by `scale`.

        Raises:
            UserError: a training batch smaller than the held-out one, or a model that cannot be differentiated twice.
        """
        x, y = self._same_size(len(target))
        device = target.device
        with forked_rng(device), training_mode_with_rho_grad(model, rho), twice_differentiable(device):
            theta = theta_of(model)
            step = training_gradient(model, loss, x, y, theta, draws[:1])
            ahead = {
                name: (weight.detach() if g is None else weight.detach() - self.eta * g.detach()).requires_grad_()
                for (name, weight), g in zip(theta.items(), step, strict=True)
            }
            model.eval()  # C2 is of the prediction without noise, from the running statistics
            held_out = _held_out_loss(model, loss, inputs, target, ahead)
            slopes = torch.autograd.grad(held_out, [*ahead.values(), *rho], allow_unused=True)
            slope, direct = slopes[: len(ahead)], slopes[len(ahead) :]
            through = vector_jacobian_product(slope, step, rho)
        total = [torch.zeros_like(parameter) for parameter in rho]
        for accumulated, by_itself, by_theta in zip(total, direct, through, strict=True):
            if by_itself is not None:
                accumulated += scale * by_itself
            if by_theta is not None:
                accumulated -= scale * by_theta
        return held_out.detach(), total

    def _same_size(self, rows: int) -> tuple[Any, Tensor]:
        """Return as many rows of this update's training batch as the held-out batch has, so that both cost alike."""
        x, y = self.batch(self._update - 1)
        if len(y) < rows:
            raise UserError(
                f"a training batch of T1T2 has {len(y)} rows, that of the regularization split {rows}; give both the "
                "same batch size, and drop_last=True to the training batches"
            )
        return x[:rows], y[:rows]


def _held_out_loss(model: nn.Module, loss: Loss, inputs: Any, target: Tensor, weights: Mapping[str, Tensor]) -> Tensor:
    output = functional_call(model, dict(weights), *arguments(model, inputs))
    piece = loss.per_draw(output, target, temperature(model).to(target.device))
    return loss.of_draws(piece[None], target)
