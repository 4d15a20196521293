"""Random ridge regressions, what is known of each, and what cross-regularization learns on it."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossreg import Batches, CrossRegularizer, GaussianRegression, Implicit
from crossreg.regularizers.norms import learn_norms
from crossreg.regularizers.penalties import L2, Objective, penalize
from studies.scan import first_fall, lowest

__all__ = ["UPDATES", "Problem", "half_mse", "learn", "make_problem"]

UPDATES = 120
_LOWEST = -40.0
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """A linear regression; every split is `(x [n, d], y [n, 1])` in float64."""

    train: Split
    reg: Split
    test: Split

    def solution(self, strength: float) -> Tensor:
        """Return the ridge solution `[d, 1]` of a lambda."""
        x, y = self.train
        gram = x.T @ x / len(x)
        return torch.linalg.solve(gram + strength * torch.eye(len(gram), dtype=x.dtype), x.T @ y / len(x))

    def best(self) -> tuple[float, float]:
        """Return the lambda whose solution has the lowest loss on the regularization split, and that loss."""
        grid = [-25 + 0.1 * step for step in range(350)]
        return lowest(lambda strength: half_mse(self.solution(strength), self.reg), grid)

    def direct_fixed_point(self) -> float:
        """Return the lambda at which the direct rule stops: along w(lambda) the held-out loss has no slope."""
        x, y = self.reg

        def slope(strength: float) -> float:
            weights = self.solution(strength)
            return float((weights * (x.T @ (x @ weights - y))).sum())

        # stable where the slope in the norm turns from down to up, and the norm falls as lambda grows
        return first_fall(slope, [-32 + 0.25 * step for step in range(180)]) or math.exp(_LOWEST)

    def strength_of(self, weights: Tensor) -> float:
        """Return the lambda whose solution has the norm of these weights; 4e-18 for a norm that none has."""
        from scipy.optimize import brentq

        norm = float(weights.norm())

        def longer(log: float) -> float:
            return float(self.solution(math.exp(log)).norm()) - norm

        return math.exp(_LOWEST if longer(_LOWEST) <= 0 else brentq(longer, _LOWEST, 15))


def make_problem(
    condition: float, noise: float, seed: int, num_train: int = 100, num_reg: int = 100, num_features: int = 50
) -> Problem:
    """Return a random problem.

    Args:
        condition: of the inputs' covariance, whose eigenvalues are evenly spaced on a logarithmic scale.
        noise: standard deviation of the targets' noise; that of the signal is 1.
        seed: fixes everything.
        num_train: training examples.
        num_reg: regularization examples.
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

    def split(rows: int) -> Split:
        x = normal(rows, num_features) @ root
        return x, x @ weights + noise * normal(rows, 1)

    return Problem(split(num_train), split(num_reg), split(10_000))


def half_mse(weights: Tensor, split: Split) -> float:
    """Return half the mean squared error of weights `[d, 1]`."""
    return float(0.5 * (split[0] @ weights - split[1]).square().mean())


def learn(problem: Problem, estimator: str, updates: int = UPDATES) -> Tensor:
    """Return the weights `[d, 1]` that cross-regularization ends with.

    Theta is taken to its minimum (L-BFGS) before every update of rho, and the step of rho is lowered to zero, so that
    what is left is the estimator's own error.

    Args:
        problem: the splits.
        estimator: "direct" or "implicit".
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
    regularizer = CrossRegularizer(
        model, loss, [problem.reg], interval=1, samples=1, lr=0.3, temperature=False, **options
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    solver = torch.optim.LBFGS(
        regularizer.theta,
        max_iter=100,
        history_size=50,
        tolerance_grad=1e-10,
        tolerance_change=0,
        line_search_fn="strong_wolfe",
    )
    objective = Objective(model, loss)

    def closure() -> Tensor:
        solver.zero_grad()
        value: Tensor = objective(x, y)
        value.backward()
        return value

    for _ in range(updates):
        solver.step(closure)
        regularizer.step()
        schedule.step()
    solver.step(closure)
    weights = model.weight
    assert isinstance(weights, Tensor)
    return weights.detach().T.clone()
