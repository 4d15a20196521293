"""Noisy samples of smooth functions, what is known of each, and what cross-regularization learns on it."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossreg import Batches, CrossRegularizer, GaussianRegression, Implicit, Smoothness, learn_levels, penalize
from studies.scan import first_fall, lowest

__all__ = ["FUNCTIONS", "UPDATES", "Problem", "Samples", "design", "learn", "make_problem", "roughness"]

UPDATES = 150
NUM_BASIS = 40
_LOWEST, _HIGHEST = -25.0, 12.0  # log lambda: as good as none, and a straight line
_GRID = [_LOWEST + 0.2 * step for step in range(int(5 * (_HIGHEST - _LOWEST)) + 1)]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sine": lambda x: torch.sin(2 * math.pi * x),
    "bumps": lambda x: torch.exp(-(((x - 0.3) / 0.06) ** 2)) - 0.7 * torch.exp(-(((x - 0.65) / 0.12) ** 2)),
    "chirp": lambda x: torch.sin(2 * math.pi * (x + 2 * x**3)),
}
"""By name, on [0, 1], in the order of their wiggliness."""


@dataclass(frozen=True)
class Samples:
    """Points `x [n]` in [0, 1], their basis functions `basis [n, d]`, and values `y [n, 1]`, all float64."""

    x: Tensor
    basis: Tensor
    y: Tensor

    def solution(self, strength: float) -> Tensor:
        """Return the coefficients `[d, 1]` that minimize 1/(2n) ||B c - y||^2 + lambda R(c)."""
        n, d = self.basis.shape
        system = self.basis.T @ self.basis / n + strength * roughness(d)
        return torch.linalg.solve(system, self.basis.T @ self.y / n)

    def loss(self, coefficients: Tensor) -> float:
        """Return half the mean squared error of coefficients `[d, 1]`."""
        return float(0.5 * (self.basis @ coefficients - self.y).square().mean())

    def gcv(self, strength: float) -> float:
        """Return the score of generalized cross-validation, (1/n) ||y - A y||^2 / (1 - tr A / n)^2.

        A is the hat matrix of this lambda. Source: Craven and Wahba 1979, equation 1.9.
        """
        n, d = self.basis.shape
        gram = self.basis.T @ self.basis / n
        degrees = float(torch.linalg.solve(gram + strength * roughness(d), gram).trace())
        return 2 * self.loss(self.solution(strength)) / (1 - degrees / n) ** 2

    def strength_of_gcv(self) -> float:
        """Return the lambda of the lowest score."""
        return lowest(self.gcv, _GRID)[0]


@dataclass(frozen=True)
class Problem:
    """Samples of a function: those theta trains on, those rho learns on, both together, and the function itself."""

    train: Samples
    reg: Samples
    everything: Samples
    truth: Samples

    def best(self) -> tuple[float, float]:
        """Return the lambda whose fit to train has the lowest loss on reg, and that loss."""
        return lowest(self._reg_loss, _GRID)

    def minima(self) -> list[float]:
        """Return every lambda at which that loss has a minimum, to a tenth of its logarithm, from small to large."""
        grid = [_LOWEST + 0.1 * step for step in range(int(10 * (_HIGHEST - _LOWEST)) + 1)]
        values = [self._reg_loss(math.exp(log)) for log in grid]
        return [math.exp(grid[i]) for i in range(1, len(grid) - 1) if values[i - 1] > values[i] <= values[i + 1]]

    def oracle(self) -> float:
        """Return the lambda whose fit to everything is nearest to the function, which only we can know."""
        return lowest(lambda strength: self.truth.loss(self.everything.solution(strength)), _GRID)[0]

    def error(self, coefficients: Tensor) -> float:
        """Return the mean squared distance from the function."""
        return 2 * self.truth.loss(coefficients)

    def library_error(self) -> float:
        """Return the same of SciPy's smoothing spline of everything, whose lambda is from generalized cross-validation.

        It has a knot at every sample and integrates the squared second derivative.
        """
        from scipy.interpolate import make_smoothing_spline

        order = self.everything.x.argsort()
        spline = make_smoothing_spline(self.everything.x[order].numpy(), self.everything.y[order, 0].numpy())
        return float((torch.from_numpy(spline(self.truth.x.numpy())) - self.truth.y[:, 0]).square().mean())

    def refit(self, strength: float) -> Tensor:
        """Return the fit to everything, the penalty weighing as much against each sample as in the fit to train."""
        return self.everything.solution(strength * len(self.train.x) / len(self.everything.x))

    def as_on_train(self, strength: float) -> float:
        """Return the lambda that weighs as much against each sample in a fit to train as this in one to everything."""
        return strength * len(self.everything.x) / len(self.train.x)

    def direct_fixed_point(self) -> float:
        """Return the lambda at which the direct rule stops: d L_reg / d c at c(lambda) has no part along grad R."""
        penalty = roughness(self.train.basis.shape[1])

        def slope(strength: float) -> float:
            c = self.train.solution(strength)
            return float(((penalty @ c) * (self.reg.basis.T @ (self.reg.basis @ c - self.reg.y))).sum())

        # stable where the slope along grad R turns from up to down, and R falls as lambda grows
        grid = [_LOWEST + 0.25 * step for step in range(int(4 * (_HIGHEST - _LOWEST)) + 1)]
        return first_fall(slope, grid) or math.exp(_LOWEST)

    def _reg_loss(self, strength: float) -> float:
        return self.reg.loss(self.train.solution(strength))

    def strength_of(self, coefficients: Tensor) -> float:
        """Return the lambda whose fit to train is as rough as these coefficients, within what lambda can do."""
        from scipy.optimize import brentq

        wanted = math.log(_rough(coefficients))

        def rougher(log: float) -> float:
            return math.log(_rough(self.train.solution(math.exp(log)))) - wanted

        if rougher(_LOWEST) <= 0:
            return math.exp(_LOWEST)
        return math.exp(_HIGHEST if rougher(_HIGHEST) >= 0 else brentq(rougher, _LOWEST, _HIGHEST))


def _rough(coefficients: Tensor) -> float:
    return float(Smoothness().measure([coefficients.T])[0])


def roughness(size: int) -> Tensor:
    """Return D^T D of second differences, the matrix of the quadratic form 2 R."""
    differences = torch.eye(size, dtype=torch.float64).diff(n=2, dim=0)
    return differences.T @ differences


def design(x: Tensor, num_basis: int = NUM_BASIS) -> Tensor:
    """Return cubic B-splines on evenly spaced knots, `[n, num_basis]`, at points of [0, 1]."""
    from scipy.interpolate import BSpline

    width = 1 / (num_basis - 3)
    knots = torch.arange(-3, num_basis + 1, dtype=torch.float64) * width
    return torch.from_numpy(BSpline.design_matrix(x.clamp(0, 1 - 1e-12).numpy(), knots.numpy(), 3).toarray())


def make_problem(function: str, noise: float, seed: int, num_train: int = 100, num_reg: int = 50) -> Problem:
    """Return a random problem.

    Args:
        function: see `FUNCTIONS`.
        noise: standard deviation of the samples' noise, in standard deviations of the function.
        seed: fixes everything.
        num_train: samples to train on, at random places.
        num_reg: samples for regularization, at others.
    """
    generator = torch.Generator().manual_seed(seed)
    n = num_train + num_reg
    grid = torch.linspace(0, 1, 2001, dtype=torch.float64)
    values = FUNCTIONS[function](grid)
    # a thousandth apart at least: SciPy's spline, with a knot at each, loses accuracy where two nearly coincide
    x = torch.randperm(1001, generator=generator)[:n].double() / 1000
    y = (FUNCTIONS[function](x) - values.mean()) / values.std()
    y = (y + noise * torch.randn(n, generator=generator, dtype=torch.float64))[:, None]
    everything = Samples(x, design(x), y)
    train, reg = (Samples(x[rows], everything.basis[rows], y[rows]) for rows in (slice(num_train), slice(num_train, n)))
    inside = grid[(grid >= train.x.min()) & (grid <= train.x.max())]  # nobody is asked to extrapolate
    true = ((FUNCTIONS[function](inside) - values.mean()) / values.std())[:, None]
    return Problem(train, reg, everything, Samples(inside, design(inside), true))


def learn(problem: Problem, estimator: str, updates: int = UPDATES) -> Tensor:
    """Return the coefficients `[d, 1]` that cross-regularization ends with.

    Theta is put at its minimum, which has a closed form, before every update of rho, and the step of rho is lowered to
    zero, so that what is left is the estimator's own error. With "direct" the minimum is that among coefficients of
    the present roughness.

    Args:
        problem: the samples.
        estimator: "direct" or "implicit".
        updates: of rho.
    """
    train = problem.train
    model: nn.Module = nn.Linear(train.basis.shape[1], 1, bias=False).double()
    options: dict[str, Any] = {"lr": 0.3}
    if estimator == "implicit":
        penalty = Smoothness(_START)
        penalize(model, penalty, "*")
        whole = Batches(train.basis, train.y, len(train.y), shuffle=False)
        options["estimator"] = Implicit(whole, solver="cg", terms=300, tolerance=1e-10)
    else:
        learn_levels(model, Smoothness(), "*")
        options["lr"] = 0.02  # of the size of the coefficients
    reg = [(problem.reg.basis, problem.reg.y)]
    regularizer = CrossRegularizer(
        model, GaussianRegression(), reg, interval=1, samples=1, temperature=False, **options
    )
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    (weights,) = regularizer.theta
    weights.data = train.solution(_START).T
    for _ in range(updates):
        regularizer.step()
        schedule.step()
        strength = float(penalty.strength) if estimator == "implicit" else problem.strength_of(weights.detach().T)
        weights.data = train.solution(strength).T
    return weights.detach().T.clone()


_START = 0.01
