"""Random ridge regressions: the closed form of their best regularization, and what cross-regularization learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossreg import Batches, CrossRegularizer, GaussianRegression, Implicit
from crossreg.regularizers.norms import learn_norms
from crossreg.regularizers.penalties import L2, Objective, penalize
from crossreg.studies.batch import Batch, half_mse
from crossreg.studies.scan import first_fall, lowest

__all__ = ["UPDATES", "RidgeProblem", "learn", "make_problem"]

UPDATES = 120
"""Updates of rho in a training."""
_LOWEST = -40.0  # log lambda that is as good as none


@dataclass(frozen=True)
class RidgeProblem:
    """A linear regression, whose splits are `(x [n, d], y [n, 1])` in float64.

    `lambda` is the strength of the penalty, half the squared norm of the weights.
    """

    train: Batch
    reg: Batch
    test: Batch

    def solution(self, strength: float) -> Tensor:
        """Return the weights `[d, 1]` that minimize the penalized training loss for a lambda."""
        x, y = self.train
        gram = x.T @ x / len(x)
        return torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=x.dtype), x.T @ y / len(x))

    def best(self) -> tuple[float, float]:
        """Return the lambda whose solution has the lowest loss on the reg split, and that loss."""
        grid = [-25 + 0.1 * step for step in range(350)]
        return lowest(lambda strength: half_mse(self.solution(strength), self.reg), grid)

    def direct_fixed_point(self) -> float:
        """Return the lambda at whose solution w the direct gradient is zero: the reg loss has no slope along w.

        The direct gradient learns the norm of w, its direction held fixed, so it can stop nowhere else.
        """
        x, y = self.reg

        def slope(strength: float) -> float:
            weights = self.solution(strength)
            return float((weights * (x.T @ (x @ weights - y))).sum())

        # it stops at a minimum over the norm: as the norm grows the slope rises through zero, and as lambda grows the
        # norm shrinks, so the slope falls
        return first_fall(slope, [-32 + 0.25 * step for step in range(180)]) or math.exp(_LOWEST)

    def strength_of(self, weights: Tensor) -> float:
        """Return the lambda whose solution has the norm of these weights; 4e-18 for a norm larger than any of them."""
        from scipy.optimize import brentq

        norm = float(weights.norm())

        def longer(log: float) -> float:
            return float(self.solution(math.exp(log)).norm()) - norm

        return math.exp(_LOWEST if longer(_LOWEST) <= 0 else brentq(longer, _LOWEST, 15))


def make_problem(
    condition: float, noise: float, seed: int, num_train: int = 100, num_reg: int = 100, num_features: int = 50
) -> RidgeProblem:
    """Return a random problem.

    Args:
        condition: condition number of the inputs' covariance, whose eigenvalues are evenly spaced on a logarithmic
            scale.
        noise: standard deviation of the targets' noise; that of the signal is 1.
        seed: fixes everything.
        num_train: examples of the training split.
        num_reg: examples of the reg split.
        num_features: d.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    eigenvalues = torch.logspace(0, -math.log10(condition), num_features, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(normal(num_features, num_features))
    root = (rotation * eigenvalues.sqrt()).T
    weights = normal(num_features, 1)
    weights = weights / (root @ weights).norm()

    def split(rows: int) -> Batch:
        x = normal(rows, num_features) @ root
        return x, x @ weights + noise * normal(rows, 1)

    return RidgeProblem(split(num_train), split(num_reg), split(10_000))


def learn(problem: RidgeProblem, estimator: str, updates: int = UPDATES) -> Tensor:
    """Return the weights `[d, 1]` that cross-regularization ends with.

    Theta is taken to its minimum (L-BFGS) before every update of rho, and the step size of rho is lowered to zero, so
    that what is left is the estimator's own error.

    Args:
        problem: the splits.
        estimator: "implicit" learns lambda; "direct" learns the norm of the weights.
        updates: of rho.
    """
    x, y = problem.train
    torch.manual_seed(0)
    model: nn.Module = nn.Linear(x.shape[1], 1, bias=False).double()
    options: dict[str, Any] = {}
    if estimator == "implicit":
        penalize(model, L2(0.01), "*")
        whole = Batches(x, y, len(x), shuffle=False)
        options["estimator"] = Implicit(whole, solver="cg", terms=300, tolerance=1e-10)
    else:
        learn_norms(model, "*")
    loss = GaussianRegression()
    regularizer = CrossRegularizer(model, loss, [problem.reg], interval=1, samples=1, lr=0.3, **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    minimize = _minimizer(regularizer.theta, Objective(model, loss), problem.train)
    for _ in range(updates):
        minimize()
        regularizer.step()
        schedule.step()
    minimize()
    weights = model.weight
    assert isinstance(weights, Tensor)
    return weights.detach().T.clone()


def _minimizer(theta: list[nn.Parameter], objective: Objective, batch: Batch) -> Callable[[], object]:
    """Return a function that takes theta to the minimum of the training objective, from where it is."""
    solver = torch.optim.LBFGS(
        theta,
        max_iter=100,
        history_size=50,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )

    def closure() -> float:
        solver.zero_grad()
        value = objective(*batch)
        value.backward()
        return float(value.detach())

    return lambda: solver.step(closure)
