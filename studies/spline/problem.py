"""Smoothing splines of noisy samples: their best smoothness, and what cross-regularization learns."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from crossreg import Batches, CrossRegularizer, GaussianRegression, Implicit, Smoothness, learn_levels, penalize
from crossreg.studies.scan import first_fall, lowest

__all__ = ["FUNCTIONS", "UPDATES", "Samples", "SplineProblem", "design", "learn", "make_problem", "roughness"]

UPDATES = 150
"""Updates of rho in a training."""
NUM_BASIS = 40
_START = 0.01  # lambda
_LOWEST, _HIGHEST = -25.0, 12.0  # log lambda: as good as none, and a straight line
_GRID = [_LOWEST + 0.2 * step for step in range(int(5 * (_HIGHEST - _LOWEST)) + 1)]

FUNCTIONS: dict[str, Callable[[Tensor], Tensor]] = {
    "sine": lambda x: torch.sin(2 * math.pi * x),
    "bumps": lambda x: torch.exp(-(((x - 0.3) / 0.06) ** 2)) - 0.7 * torch.exp(-(((x - 0.65) / 0.12) ** 2)),
    "chirp": lambda x: torch.sin(2 * math.pi * (x + 2 * x**3)),
}
"""Functions on [0, 1] by name, from smooth to wiggly."""


@dataclass(frozen=True)
class Samples:
    """Samples of a function, and splines that are fitted to them; all float64.

    A spline is a sum of d basis functions times its coefficients c. `lambda` is the strength of the penalty R(c), half
    the sum of squared second differences of neighbouring coefficients.

    Attributes:
        x: places in [0, 1], `[n]`.
        basis: values of the basis functions there, `[n, d]`.
        y: values of the function there, with noise, `[n, 1]`.
    """

    x: Tensor
    basis: Tensor
    y: Tensor

    def solution(self, strength: float) -> Tensor:
        """Return the coefficients `[d, 1]` that minimize 1/(2n) ||B c - y||^2 + lambda R(c)."""
        n, d = self.basis.shape
        system = self.basis.T @ self.basis / n + strength * roughness(d)
        return torch.linalg.solve(system, self.basis.T @ self.y / n)

    def loss(self, coefficients: Tensor) -> float:
        """Return half the mean squared error of the spline of coefficients `[d, 1]`."""
        return float(0.5 * (self.basis @ coefficients - self.y).square().mean())

    def gcv(self, strength: float) -> float:
        """Return the score of generalized cross-validation, (1/n) ||y - A y||^2 / (1 - tr A / n)^2.

        A is the matrix that takes y to the fitted values with this lambda. Source: Craven and Wahba 1979, equation 1.9.
        """
        n, d = self.basis.shape
        gram = self.basis.T @ self.basis / n
        degrees = float(torch.linalg.solve(gram + strength * roughness(d), gram).trace())
        return 2 * self.loss(self.solution(strength)) / (1 - degrees / n) ** 2

    def strength_of_gcv(self) -> float:
        """Return the lambda of the lowest score of generalized cross-validation."""
        return lowest(self.gcv, _GRID)[0]


@dataclass(frozen=True)
class SplineProblem:
    """Samples of one function.

    Attributes:
        train: what theta trains on.
        reg: what rho is learned on.
        everything: both together.
        truth: the function without noise, on a fine grid.
    """

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
        """Return the lambda whose fit to everything is nearest to the true function, known here but not in practice."""
        return lowest(lambda strength: self.truth.loss(self.everything.solution(strength)), _GRID)[0]

    def error(self, coefficients: Tensor) -> float:
        """Return the mean squared distance of a spline from the true function."""
        return 2 * self.truth.loss(coefficients)

    def library_error(self) -> float:
        """Return the same for SciPy's smoothing spline of everything.

        Its lambda is from generalized cross-validation too. It has a knot at every sample, and its penalty is the
        integral of the squared second derivative.
        """
        from scipy.interpolate import make_smoothing_spline

        order = self.everything.x.argsort()
        spline = make_smoothing_spline(self.everything.x[order].numpy(), self.everything.y[order, 0].numpy())
        return float((torch.from_numpy(spline(self.truth.x.numpy())) - self.truth.y[:, 0]).square().mean())

    def refit(self, strength: float) -> Tensor:
        """Return the fit to everything that corresponds to a lambda of fits to train.

        Losses are means over samples, so lambda is scaled to keep the weight of the penalty against a single sample.
        """
        return self.everything.solution(strength * len(self.train.x) / len(self.everything.x))

    def as_on_train(self, strength: float) -> float:
        """Return the lambda of fits to train that corresponds to this one of fits to everything; see `refit`."""
        return strength * len(self.everything.x) / len(self.train.x)

    def direct_fixed_point(self) -> float:
        """Return the lambda at whose fit c the direct gradient is zero: the reg loss has no slope along grad R(c).

        The direct gradient learns the level of R alone, so it can stop nowhere else.
        """
        penalty = roughness(self.train.basis.shape[1])

        def slope(strength: float) -> float:
            c = self.train.solution(strength)
            return float(((penalty @ c) * (self.reg.basis.T @ (self.reg.basis @ c - self.reg.y))).sum())

        # it stops at a minimum over the level: as R grows the slope rises through zero, and as lambda grows R shrinks,
        # so the slope falls
        grid = [_LOWEST + 0.25 * step for step in range(int(4 * (_HIGHEST - _LOWEST)) + 1)]
        return first_fall(slope, grid) or math.exp(_LOWEST)

    def _reg_loss(self, strength: float) -> float:
        return self.reg.loss(self.train.solution(strength))

    def strength_of(self, coefficients: Tensor) -> float:
        """Return the lambda whose fit to train has the R of these coefficients; an end of lambda's range if none."""
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
    """Return the matrix M `[size, size]` with R(c) = 1/2 c^T M c."""
    differences = torch.eye(size, dtype=torch.float64).diff(n=2, dim=0)
    return differences.T @ differences


def design(x: Tensor, num_basis: int = NUM_BASIS) -> Tensor:
    """Return the values of cubic B-splines on evenly spaced knots at places in [0, 1], `[n, num_basis]`."""
    from scipy.interpolate import BSpline

    width = 1 / (num_basis - 3)
    knots = torch.arange(-3, num_basis + 1, dtype=torch.float64) * width
    return torch.from_numpy(BSpline.design_matrix(x.clamp(0, 1 - 1e-12).numpy(), knots.numpy(), 3).toarray())


def make_problem(function: str, noise: float, seed: int, num_train: int = 100, num_reg: int = 50) -> SplineProblem:
    """Return a random problem.

    Args:
        function: a name of `FUNCTIONS`.
        noise: standard deviation of the samples' noise, in standard deviations of the function.
        seed: fixes everything.
        num_train: samples of the training split, at random places.
        num_reg: samples of the reg split, at others.
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
    return SplineProblem(train, reg, everything, Samples(inside, design(inside), true))


def learn(problem: SplineProblem, estimator: str, updates: int = UPDATES) -> Tensor:
    """Return the coefficients `[d, 1]` that cross-regularization ends with.

    Theta is put at its minimum, which has a closed form, before every update of rho, and the step size of rho is
    lowered to zero, so that what is left is the estimator's own error.

    Args:
        problem: the samples.
        estimator: "implicit" learns lambda; "direct" learns the level of R, and theta's minimum is the one among
            coefficients of that level.
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
    regularizer = CrossRegularizer(model, GaussianRegression(), reg, interval=1, samples=1, **options)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, updates)
    (weights,) = regularizer.theta
    weights.data = train.solution(_START).T
    for _ in range(updates):
        regularizer.step()
        schedule.step()
        strength = float(penalty.strength) if estimator == "implicit" else problem.strength_of(weights.detach().T)
        weights.data = train.solution(strength).T
    return weights.detach().T.clone()
