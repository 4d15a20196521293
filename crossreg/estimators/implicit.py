"""The gradient through the minimum that theta is heading for, by the implicit function theorem.

    theta*(rho) = argmin C1(theta, rho)
    d C2 / d rho = partial C2 / partial rho - v . partial^2 C1 / (partial theta partial rho),
    (H + damping I) v = partial C2 / partial theta,       H = partial^2 C1 / partial theta^2

The Hessian H is never formed: its product with a vector is one backward pass through the graph of C1's gradient.
v comes from conjugate gradients, or from the Neumann series

    v = sum_{j <= terms} (I - P (H + damping I))^j P  partial C2 / partial theta

with P the step sizes of theta's own optimizer: what `terms` more steps would make of a change of rho.

Source: Bengio 2000; Pedregosa 2016, arXiv:1602.02355 (conjugate gradients); Lorraine, Vicol, Duvenaud 2020,
arXiv:1911.02590 (Neumann series).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any, Literal

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
    vector_jacobian_product,
)
from crossreg.losses import Loss
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.penalties import Penalty, terms

__all__ = ["Implicit"]

Solver = Literal["neumann", "cg"]
Vector = list[Tensor]


class Implicit(HypergradientEstimator):
    """Follows theta to its minimum; exact there, with an exact solver.

    Away from the minimum, or where H has negative curvature, it is an approximation: the Neumann series looks as many
    steps ahead as it has terms, and conjugate gradients stop at the first direction of negative curvature.

    Args:
        train: batches of the training split, in an order of their own, one an update; the whole split in one batch is
            exact, a smaller one a sample.
        optimizer: of theta, whose step sizes the Neumann series takes; it may be set later, since it is made of
            `CrossRegularizer.theta`. Conjugate gradients need none.
        solver: "neumann" or "cg".
        terms: of the series, or iterations at most.
        damping: added to H's diagonal.
        tolerance: conjugate gradients stop where the residual has shrunk to this share.

    Raises:
        UserError: an argument out of range; in an update, no optimizer where one is needed.
    """

    def __init__(
        self,
        train: Batches,
        optimizer: torch.optim.Optimizer | None = None,
        *,
        solver: Solver = "neumann",
        terms: int = 10,
        damping: float = 0.0,
        tolerance: float = 1e-6,
    ) -> None:
        super().__init__(train, optimizer)
        if solver not in ("neumann", "cg"):
            raise UserError(f"solver is {solver!r}; allowed are 'neumann' and 'cg'")
        if terms < 1:
            raise UserError(f"terms is {terms!r}; it must be at least 1")
        if not damping >= 0:
            raise UserError(f"damping is {damping!r}; it must not be negative")
        self.solver, self.terms = solver, terms
        self.damping, self.tolerance = damping, tolerance

    def passes(self, samples: int) -> tuple[int, int]:
        """Return forward and backward passes of an update, in regularization batches, at most.

        Those of the direct gradient; the training batch under two draws (one where K is 1), its backward, and for every
        term, and for the mixed derivative, the backward of that.
        """
        train = min(samples, 2)
        return 2 * samples - 1 + train, samples + train * (1 + 2 * (self.terms + 1))

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
        """Return the held-out loss and its gradient in rho, theta following.

        Args:
            model: the unwrapped model; theta, its gradients and the running statistics stay untouched.
            loss: see `crossreg.losses`.
            inputs: one held-out batch, as the model takes it.
            target: its targets, `[B, ...]`.
            rho: parameters to differentiate by.
            draws: the noise draws of the held-out prediction; the training objective takes the first two, which
                `CrossRegularizer` draws with opposite signs.
            scale: factor on the gradient (see `torch.amp.GradScaler`).

        Returns:
            The detached scalar loss, and one tensor a rho of its shape and dtype, multiplied by `scale`.

        Raises:
            UserError: no optimizer for a Neumann series, or a model that cannot be differentiated twice.
        """
        theta = theta_of(model)
        weights = list(theta.values())
        value, slopes = Direct().gradient(model, loss, inputs, target, [*rho, *weights], draws, scale)
        free = _free(model, theta)
        total, slope = slopes[: len(rho)], _masked(slopes[len(rho) :], free)
        x, y = self.batch(self._update - 1)
        device = target.device
        with forked_rng(device), training_mode_with_rho_grad(model, rho), twice_differentiable(device):
            gradient = training_gradient(model, loss, x, y, theta, draws[:2])

            def product(vector: Vector) -> Vector:
                found = vector_jacobian_product(vector, gradient, weights, keep=True)
                damped = [self.damping * v for v in vector]
                return _masked([d if h is None else h + d for h, d in zip(found, damped, strict=True)], free)

            if self.solver == "cg":
                solution = conjugate_gradients(product, slope, self.terms, self.tolerance)
            else:
                solution = neumann(product, slope, self.step_sizes(weights, schedule=False), self.terms)
            through = vector_jacobian_product(solution, gradient, rho)
        for accumulated, by_theta in zip(total, through, strict=True):
            if by_theta is not None:
                accumulated -= by_theta
        return value, total


def _free(model: nn.Module, theta: Mapping[str, Tensor]) -> list[Tensor | None]:
    """Return which weights follow rho, aligned with theta: all (None), or those that no kink of a penalty holds."""
    free: dict[str, Tensor] = {}
    for term in terms(model):
        if isinstance(term, Penalty) and (held := term.kinks([theta[name] for name in term.names])) is not None:
            for name, where in zip(term.names, held, strict=True):
                free[name] = free.get(name, True) & ~where
    return [free.get(name) for name in theta]


def _masked(vector: Vector, free: list[Tensor | None]) -> Vector:
    return [v if mask is None else v * mask for v, mask in zip(vector, free, strict=True)]


def neumann(product: Callable[[Vector], Vector], right: Vector, sizes: Sequence[Tensor], terms: int) -> Vector:
    """Return sum_{j <= terms} (I - P H)^j P b, for the diagonal P of step sizes.

    Args:
        product: H times a vector.
        right: b.
        sizes: P's diagonal, a tensor or scalar a weight.
        terms: products with H.
    """
    term = [p * b for p, b in zip(sizes, right, strict=True)]
    total = [value.clone() for value in term]
    for _ in range(terms):
        term = [v - p * h for v, p, h in zip(term, sizes, product(term), strict=True)]
        total = [accumulated + v for accumulated, v in zip(total, term, strict=True)]
    return total


def conjugate_gradients(
    product: Callable[[Vector], Vector], right: Vector, iterations: int, tolerance: float = 0.0
) -> Vector:
    """Return an approximate solution of H v = b for a positive definite H.

    Args:
        product: H times a vector.
        right: b.
        iterations: at most.
        tolerance: stop where the residual has shrunk to this share of b.

    Returns:
        v; where a direction of no positive curvature is met, what was found before it (b itself if it is the first).

    Source: Hestenes and Stiefel 1952.
    """
    solution = [torch.zeros_like(b) for b in right]
    residual = [b.clone() for b in right]
    direction = [b.clone() for b in right]
    size = start = _dot(residual, residual)
    for iteration in range(iterations):
        if size <= tolerance**2 * start:
            break
        image = product(direction)
        curvature = _dot(direction, image)
        if curvature <= 0:
            return solution if iteration else direction
        step = size / curvature
        solution = [s + step * d for s, d in zip(solution, direction, strict=True)]
        residual = [r - step * h for r, h in zip(residual, image, strict=True)]
        before, size = size, _dot(residual, residual)
        direction = [r + size / before * d for r, d in zip(residual, direction, strict=True)]
    return solution


def _dot(left: Vector, right: Vector) -> float:
    return float(torch.stack([(a * b).sum() for a, b in zip(left, right, strict=True)]).sum())
