"""A regression with L1, the path of its solutions, and what each estimator makes of it.

    train: min_w 1/(2n) ||X w - y||^2 + lambda ||w||_1

The solution is piecewise linear in lambda, so least-angle regression (Efron et al. 2004) gives all of them exactly, and
the held-out loss along the path is piecewise quadratic: its minimum needs no search.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from crossreg import L1, Batches, CrossRegularizer, GaussianRegression, Implicit, learn_levels, penalize, training_loss
from studies.ridge.problem import Split, half_mse

__all__ = ["THETA_STEPS", "UPDATES", "LassoProblem", "diabetes", "learn", "support", "synthetic"]

UPDATES = 150
THETA_STEPS = 100
"""Steps of theta before an update of the direct rule."""
_SEX_SQUARED = 20  # of a feature with two values: the same as the feature
_START = 0.1  # of the lambda above which all weights are 0


@dataclass(frozen=True)
class LassoProblem:
    """Splits of inputs `[n, d]` and targets `[n, 1]`, float64.

    Attributes:
        train: what theta trains on.
        reg: what lambda is chosen on.
        test: what nothing is chosen on.
        truth: the weights that made the data, `[d, 1]`; None where nobody knows.
    """

    train: Split
    reg: Split
    test: Split
    truth: Tensor | None = None

    @cached_property
    def path(self) -> tuple[Tensor, Tensor]:
        """The knots, lambda falling, `[k]`, and the solutions there, `[k, d]`."""
        from sklearn.linear_model import lars_path

        x, y = (part.numpy() for part in self.train)
        strengths, _, weights = lars_path(x, y[:, 0], method="lasso")
        return torch.from_numpy(strengths.copy()), torch.from_numpy(weights.T.copy())

    def solution(self, strength: float) -> Tensor:
        """Return the solution `[d, 1]` of a lambda."""
        knots, weights = self.path
        place = int((knots > strength).sum())
        if place == 0:
            return torch.zeros_like(weights[0])[:, None]
        if place == len(knots):
            return weights[-1][:, None]
        share = (knots[place - 1] - strength) / (knots[place - 1] - knots[place])
        return torch.lerp(weights[place - 1], weights[place], share)[:, None]

    def best(self) -> tuple[float, float]:
        """Return the lambda whose solution has the lowest loss on the regularization split, and that loss."""
        knots, weights = self.path
        x, y = self.reg
        found = (float(knots[0]), half_mse(weights[0][:, None], self.reg))
        for place in range(1, len(knots)):
            start, along = weights[place - 1], weights[place] - weights[place - 1]
            move = x @ along
            share = -float(move @ (x @ start - y[:, 0])) / max(float(move @ move), 1e-300)
            share = min(max(share, 0.0), 1.0)
            value = half_mse((start + share * along)[:, None], self.reg)
            if value < found[1]:
                found = (float(torch.lerp(knots[place - 1], knots[place], share)), value)
        return found

    def direct_fixed_point(self) -> float:
        """Return the lambda at which the direct rule stops: there the held-out loss has no slope along sign(w)."""
        knots, _ = self.path
        grid = torch.logspace(math.log10(float(knots[0])), math.log10(max(float(knots[-1]), 1e-8)), 4000).tolist()
        place = min(range(len(grid)), key=lambda index: abs(grid[index] - self.start()))
        upward = self.slope(grid[place]) > 0  # the loss falls as the norm does: lambda grows
        while 0 < place < len(grid) - 1 and (self.slope(grid[place]) > 0) == upward:
            place += -1 if upward else 1
        return grid[place]

    def cross_validated(self, same_split: bool) -> Tensor:
        """Return the weights `[d, 1]` of scikit-learn's `LassoCV`, with a grid of 100 strengths.

        Args:
            same_split: choose on the regularization split and train on the training split; else choose by five folds of
                both and train on both.
        """
        from sklearn.linear_model import LassoCV
        from sklearn.model_selection import PredefinedSplit

        x, y = (torch.cat(parts).numpy() for parts in zip(self.train, self.reg, strict=True))
        folds = PredefinedSplit([-1] * len(self.train[0]) + [0] * len(self.reg[0])) if same_split else 5
        found = LassoCV(cv=folds, fit_intercept=False, max_iter=100_000).fit(x, y[:, 0])
        return self.solution(found.alpha_) if same_split else torch.from_numpy(found.coef_)[:, None]

    def start(self) -> float:
        """Return the lambda that estimators start at."""
        return _START * float(self.path[0][0])

    def strength_of(self, weights: Tensor) -> float:
        """Return the lambda whose solution has the L1 norm of these weights."""
        knots, solutions = self.path
        norms = solutions.abs().sum(1)
        norm = float(weights.abs().sum())
        # the norm grows along the path
        return float(np.interp(norm, norms.numpy(), knots.numpy()))

    def slope(self, strength: float) -> float:
        """Return that of the held-out loss along sign(w), at the solution of a lambda."""
        x, y = self.reg
        weights = self.solution(strength)
        return float((weights.sign() * (x.T @ (x @ weights - y))).sum())


def synthetic(condition: float, seed: int, num_features: int = 50, relevant: int = 8, rows: int = 100) -> LassoProblem:
    """Return a random problem whose targets depend on a few features; signal of variance 1, noise of 0.25.

    Args:
        condition: of the inputs' covariance, whose eigenvalues are evenly spaced on a logarithmic scale, in a random
            rotation; 1 for independent features.
        seed: fixes everything.
        num_features: d.
        relevant: features with a weight, of +1 or -1 before scaling.
        rows: training examples, and held-out ones.
    """
    generator = torch.Generator().manual_seed(seed)

    def normal(*shape: int) -> Tensor:
        return torch.randn(*shape, generator=generator, dtype=torch.float64)

    eigenvalues = torch.logspace(0, -math.log10(condition), num_features, dtype=torch.float64)
    rotation, _ = torch.linalg.qr(normal(num_features, num_features))
    root = (rotation * eigenvalues.sqrt()) @ rotation.T
    root = root / root.norm(dim=0)  # features of variance 1, as one would scale them
    truth = torch.zeros(num_features, 1, dtype=torch.float64)
    chosen = torch.randperm(num_features, generator=generator)[:relevant]
    truth[chosen, 0] = normal(relevant).sign()
    truth = truth / (root @ truth).norm()

    def split(rows: int) -> Split:
        x = normal(rows, num_features) @ root
        return x, x @ truth + 0.5 * normal(rows, 1)

    return LassoProblem(split(rows), split(rows), split(10_000), truth)


def diabetes(seed: int, quadratic: bool = False) -> LassoProblem:
    """Return scikit-learn's diabetes data, 442 patients: half train, a quarter reg, a quarter test.

    Inputs and target have mean 0 and variance 1 on the training split.

    Args:
        seed: fixes the split.
        quadratic: squares and products of the 10 features beside them, 64 in all (Efron et al. 2004).
    """
    from sklearn.datasets import load_diabetes
    from sklearn.preprocessing import PolynomialFeatures

    inputs, target = load_diabetes(return_X_y=True)
    if quadratic:
        names = [name for name in range(65) if name != _SEX_SQUARED]
        inputs = PolynomialFeatures(2, include_bias=False).fit_transform(inputs)[:, names]
    x, y = torch.from_numpy(inputs).double(), torch.from_numpy(target).double()
    parts = torch.randperm(len(x), generator=torch.Generator().manual_seed(seed)).split([221, 111, 110])
    x = (x - x[parts[0]].mean(0)) / x[parts[0]].std(0)
    y = ((y - y[parts[0]].mean()) / y[parts[0]].std())[:, None]
    train, reg, test = ((x[rows], y[rows]) for rows in parts)
    return LassoProblem(train, reg, test)


def support(weights: Tensor) -> set[int]:
    """Return the features with a weight: more than a thousandth of the largest."""
    sizes = weights.abs().flatten()
    return set(torch.nonzero(sizes > 1e-3 * sizes.max()).flatten().tolist())


def learn(problem: LassoProblem, estimator: str, updates: int = UPDATES) -> Tensor:
    """Return the weights `[d, 1]` that cross-regularization ends with.

    With "implicit" theta is taken to its minimum (the path) before every update of lambda. With "direct" it takes
    `THETA_STEPS` steps of gradient descent, across the gradient of the norm, before every update along it. The step of
    rho is lowered to zero.

    Args:
        problem: the splits.
        estimator: "direct" or "implicit".
        updates: of rho.
    """
    x, y = problem.train
    model: nn.Module = nn.Linear(x.shape[1], 1, bias=False).double()
    assert isinstance(model.weight, Tensor)
    model.weight.data = problem.solution(problem.start()).T.clone()
    loss = GaussianRegression()
    options: dict[str, Any] = {}
    term = L1(problem.start())
    if estimator == "implicit":
        penalize(model, term, "*")
        options["estimator"] = Implicit(
            Batches(x, y, len(x), shuffle=False), solver="cg", terms=2 * x.shape[1], tolerance=1e-10
        )
    else:
        learn_levels(model, term, "*")
    steps = 1 if estimator == "implicit" else THETA_STEPS
    regularizer = CrossRegularizer(model, loss, [problem.reg], steps, 1, lr=0.1, temperature=False, **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    steepest = float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
    optimizer = torch.optim.SGD(regularizer.theta, lr=1 / steepest)
    for _ in range(updates * steps):
        if estimator == "implicit":
            (theta,) = regularizer.theta
            theta.data = problem.solution(float(term.strength)).T.clone()
        else:
            training_loss(model, loss, model(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()
        if regularizer.step() is not None:
            schedule.step()
    return problem.solution(float(term.strength)) if estimator == "implicit" else model.weight.detach().T.clone()
