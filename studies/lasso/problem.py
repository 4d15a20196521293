"""Regressions with an L1 penalty: the exact path of their solutions, and what each estimator learns.

    train: min_w 1/(2n) ||X w - y||^2 + lambda ||w||_1

As lambda changes, the solution moves along a path of straight pieces. Least-angle regression (Efron et al. 2004) gives
the whole path exactly. On each piece the reg loss is a parabola, so its minimum over lambda is known exactly too.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np
import torch
from torch import Tensor, nn

from crossreg import L1, Batches, CrossRegularizer, GaussianRegression, Implicit, learn_levels, penalize, training_loss
from crossreg.studies.batch import Batch, half_mse

__all__ = ["THETA_STEPS", "UPDATES", "LassoProblem", "diabetes", "learn", "support", "synthetic"]

UPDATES = 150
"""Updates of rho in a training."""
THETA_STEPS = 100
"""Steps of theta before an update of rho by the direct gradient."""
_SEX_SQUARED = 20  # number of a square to leave out: the feature has two values, so its square is the feature again
_START = 0.1  # share of the lambda above which all weights are 0


@dataclass(frozen=True)
class LassoProblem:
    """A linear regression, whose splits are `(x [n, d], y [n, 1])` in float64.

    Attributes:
        train: what theta trains on.
        reg: what lambda is chosen on.
        test: plays no part in training or choice.
        truth: the weights that made the data, `[d, 1]`; None of real data.
    """

    train: Batch
    reg: Batch
    test: Batch
    truth: Tensor | None = None

    @cached_property
    def path(self) -> tuple[Tensor, Tensor]:
        """The lambdas at which two pieces of the path meet, descending, `[k]`, and the solutions there, `[k, d]`."""
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
        """Return the lambda whose solution has the lowest loss on the reg split, and that loss."""
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
        """Return the lambda at whose solution w the direct gradient is zero: the reg loss has no slope along sign(w).

        There can be several. This one is where it comes to, downhill from the lambda that estimators start at.
        """
        knots, _ = self.path
        grid = torch.logspace(math.log10(float(knots[0])), math.log10(max(float(knots[-1]), 1e-8)), 4000).tolist()
        place = min(range(len(grid)), key=lambda index: abs(grid[index] - self.start()))
        upward = self.slope(grid[place]) > 0  # the loss falls as the norm shrinks, so lambda grows
        while 0 < place < len(grid) - 1 and (self.slope(grid[place]) > 0) == upward:
            place += -1 if upward else 1
        return grid[place]

    def cross_validated(self, same_split: bool) -> Tensor:
        """Return the weights `[d, 1]` of scikit-learn's `LassoCV`, with a grid of 100 strengths.

        Args:
            same_split: choose on the reg split and train on the training split; else choose by five folds of both
                splits together, and train on both.
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
        # the norm grows as lambda falls
        return float(np.interp(norm, norms.numpy(), knots.numpy()))

    def slope(self, strength: float) -> float:
        """Return the slope of the reg loss along sign(w), the gradient of the norm, at the solution w of a lambda."""
        x, y = self.reg
        weights = self.solution(strength)
        return float((weights.sign() * (x.T @ (x @ weights - y))).sum())


def synthetic(condition: float, seed: int, num_features: int = 50, relevant: int = 8, rows: int = 100) -> LassoProblem:
    """Return a random problem whose targets depend on a few features; signal of variance 1, noise of 0.25.

    Args:
        condition: condition number of the inputs' covariance, whose eigenvalues are evenly spaced on a logarithmic
            scale, in a random rotation; 1 for independent features.
        seed: fixes everything.
        num_features: d.
        relevant: how many features have a weight, of +1 or -1 before scaling.
        rows: examples of the training split, and of the reg split.
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

    def split(rows: int) -> Batch:
        x = normal(rows, num_features) @ root
        return x, x @ truth + 0.5 * normal(rows, 1)

    return LassoProblem(split(rows), split(rows), split(10_000), truth)


def diabetes(seed: int, quadratic: bool = False) -> LassoProblem:
    """Return scikit-learn's diabetes data, 442 patients: half train, a quarter reg, a quarter test.

    Inputs and target have mean 0 and variance 1 on the training split.

    Args:
        seed: fixes the split.
        quadratic: add squares and products of the 10 features, 64 in all (Efron et al. 2004).
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
    """Return the numbers of the features whose weight is more than a thousandth of the largest."""
    sizes = weights.abs().flatten()
    return set(torch.nonzero(sizes > 1e-3 * sizes.max()).flatten().tolist())


def learn(problem: LassoProblem, estimator: str, updates: int = UPDATES) -> Tensor:
    """Return the weights `[d, 1]` that cross-regularization ends with.

    The step size of rho is lowered to zero.

    Args:
        problem: the splits.
        estimator: "implicit" learns lambda, and theta is taken to its minimum (on the path) before every update.
            "direct" learns the level of the norm: theta takes `THETA_STEPS` steps of gradient descent that leave the
            norm as it is, and then an update moves the weights along the gradient of the norm.
        updates: of rho.
    """
    model = nn.Linear(problem.train[0].shape[1], 1, bias=False).double()
    model.weight.data = problem.solution(problem.start()).T.clone()
    return (_learn_strength if estimator == "implicit" else _learn_level)(model, problem, updates)


def _learn_strength(model: nn.Module, problem: LassoProblem, updates: int) -> Tensor:
    x, y = problem.train
    term = L1(problem.start())
    penalize(model, term, "*")
    whole = Batches(x, y, len(x), shuffle=False)
    estimator = Implicit(whole, solver="cg", terms=2 * x.shape[1], tolerance=1e-10)
    regularizer = CrossRegularizer(model, GaussianRegression(), [problem.reg], 1, 1, lr=0.1, estimator=estimator)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    (theta,) = regularizer.theta
    for _ in range(updates):
        theta.data = problem.solution(float(term.strength)).T.clone()
        regularizer.step()
        schedule.step()
    return problem.solution(float(term.strength))


def _learn_level(model: nn.Module, problem: LassoProblem, updates: int) -> Tensor:
    (x, y), loss = problem.train, GaussianRegression()
    learn_levels(model, L1(), "*")
    regularizer = CrossRegularizer(model, loss, [problem.reg], THETA_STEPS, 1, lr=0.1)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    steepest = float(torch.linalg.eigvalsh(x.T @ x / len(x))[-1])
    optimizer = torch.optim.SGD(regularizer.theta, lr=1 / steepest)
    for _ in range(updates * THETA_STEPS):
        training_loss(model, loss, model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        if regularizer.step() is not None:
            schedule.step()
    weight = model.weight
    assert isinstance(weight, Tensor)
    return weight.detach().T.clone()
