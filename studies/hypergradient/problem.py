"""Small problems with a minimum of the training objective that can be found to many digits, one a kind of rho.

A penalty keeps every minimum isolated: without one, a network that separates its training data has none, and weights
before a normalization have none with one that leaves out the normalization's own. The truth is a central difference of
the held-out loss at minima found anew on either side.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

from crossreg import (
    L1,
    L2,
    Classification,
    GaussianRegression,
    LabelSmoothing,
    Loss,
    LossTemperature,
    Smoothness,
    inject_noise,
    learn_norms,
    penalize,
)
from crossreg.core.random import forked_rng
from crossreg.estimators import Direct
from crossreg.estimators.hypergradient import theta_of, training_gradient, training_mode_with_rho_grad
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, noise_layers, set_draw
from crossreg.regularizers.penalties import Objective

__all__ = ["KINDS", "Problem", "make_problem"]

ROWS = 30
_ACCURACY = 1e-11
Split = tuple[Tensor, Tensor]


@dataclass(frozen=True)
class Problem:
    """A model at the minimum of its training objective, in float64.

    Attributes:
        model: theta is at the minimum.
        loss: of both splits.
        train: theta's, `(x, y)`.
        reg: rho's, with as many rows.
        names: of the rho in question; what else the model holds of rho is constant.
        draws: of the noise; the training objective is their average too.
        sparse: the minimum is one of the lasso.
    """

    model: nn.Module
    loss: Loss
    train: Split
    reg: Split
    names: list[str]
    draws: list[Draw]
    sparse: bool = False

    def orders(self) -> list[list[Draw]]:
        """Return the draws in as many orders as there are pairs, another one first in each.

        An estimator takes one or two for the training objective. In training they are others in every update, so what
        counts is the mean over these.
        """
        return [self.draws[start:] + self.draws[:start] for start in range(0, len(self.draws), 2)]

    @property
    def rho(self) -> list[nn.Parameter]:
        """What is differentiated by."""
        parameters = rho_parameters(self.model)
        return [parameters[name] for name in self.names]

    def settle(self) -> None:
        """Take theta to the minimum of the training objective, from where it is."""
        if self.sparse:
            self._lasso()
        else:
            self._descend()
            self._newton()
            if any(float(w.detach().norm()) < 1e-3 for w in theta_of(self.model).values() if w.ndim > 1):
                raise ArithmeticError("the minimum is a network that sees nothing")

    def held_out(self) -> float:
        """Return the held-out loss."""
        return float(Direct().gradient(self.model, self.loss, *self.reg, [], self.draws)[0])

    def hessian(self) -> Tensor:
        """Return the second derivative of the training objective in theta, `[n, n]`."""
        weights = list(theta_of(self.model).values())
        with self._slope() as slope:
            unit = torch.eye(len(slope), dtype=slope.dtype)
            columns = torch.autograd.grad(slope, weights, unit, is_grads_batched=True, materialize_grads=True)
        return torch.cat([column.flatten(1) for column in columns], 1)

    def truth(self, h: float = 1e-4) -> Tensor:
        """Return central differences of the held-out loss, theta at its minimum on either side, `[n]`."""
        found = []
        inverse = None if self.sparse else self._inverse()
        for name, parameter in zip(self.names, self.rho, strict=True):
            for index in range(parameter.numel()):
                sides = []
                for side in (h, -h):
                    twin = copy.deepcopy(self)
                    rho_parameters(twin.model)[name].data.view(-1)[index] += side
                    twin._lasso() if self.sparse else twin._newton(inverse)
                    sides.append(twin.held_out())
                found.append((sides[0] - sides[1]) / (2 * h))
        return torch.tensor(found, dtype=torch.float64)

    @contextmanager
    def _slope(self) -> Iterator[Tensor]:
        """Have the gradient of the training objective in theta, with its graph, `[n]`."""
        with forked_rng(self.train[1].device), training_mode_with_rho_grad(self.model, []):
            theta = theta_of(self.model)
            slopes = training_gradient(self.model, self.loss, *self.train, theta, self.draws)
            pairs = zip(theta.values(), slopes, strict=True)
            yield _flat([torch.zeros_like(weight) if slope is None else slope for weight, slope in pairs])

    def _descend(self) -> None:
        theta = list(theta_of(self.model).values())
        objective = Objective(self.model.train(), self.loss)
        solver = torch.optim.LBFGS(
            theta, max_iter=500, history_size=50, tolerance_grad=1e-6, tolerance_change=0, line_search_fn="strong_wolfe"
        )

        def closure() -> Tensor:
            solver.zero_grad()
            values = []
            for draw in self.draws:
                set_draw(self.model, draw, self.train[1].device)
                values.append(objective(*self.train))
            value = torch.stack(values).mean()
            value.backward()
            return value

        with forked_rng(self.train[1].device):
            solver.step(closure)
        solver.zero_grad()
        for layer in noise_layers(self.model).values():
            layer.sign = 1.0

    def _newton(self, inverse: Tensor | None = None, steps: int = 50) -> None:
        """Find the digits that a line search cannot see, all there are; a Hessian is kept while it helps."""
        theta, before = list(theta_of(self.model).values()), math.inf
        for _ in range(steps):
            with self._slope() as slope:
                right = slope.detach()
            size = float(right.abs().max())
            stuck = size > 0.1 * before
            if size < _ACCURACY and (stuck or size == 0):
                return
            if inverse is None or stuck:
                inverse = self._inverse()
            before = size
            for weight, change in zip(theta, (inverse @ right).split([p.numel() for p in theta]), strict=True):
                weight.data -= change.view_as(weight)
        raise ArithmeticError("no minimum of the training objective was found")

    def _inverse(self) -> Tensor:
        """Return the Hessian's inverse, directions that change nothing (the size of a direction's vector) left out."""
        values, vectors = torch.linalg.eigh(self.hessian())
        if float(values[0]) < -1e-6 * float(values[-1]):
            raise ArithmeticError("this is no minimum of the training objective")
        kept = values > 1e-7 * values[-1]
        return vectors[:, kept] / values[kept] @ vectors[:, kept].T

    def _lasso(self) -> None:
        """Soft thresholding to find which weights are 0, then the others in closed form."""
        x, y = self.train
        (weight,) = theta_of(self.model).values()
        strength = float(rho_parameters(self.model)[self.names[0]].exp())
        gram, moment = x.T @ x / len(x), x.T @ y[:, 0] / len(x)
        step = 1 / float(torch.linalg.eigvalsh(gram)[-1])
        w = weight.data[0].clone()
        for _ in range(5000):
            moved = w - step * (gram @ w - moment)
            w = moved.sign() * (moved.abs() - step * strength).clamp_min(0)
        kept = w != 0
        w[kept] = torch.linalg.solve(gram[kept][:, kept], moment[kept] - strength * w[kept].sign())
        slack = strength - (gram @ w - moment)[~kept].abs()
        if not (len(slack) and kept.any() and float(slack.min()) > 1e-3 * strength):
            raise ArithmeticError("the weights that are 0 are not settled here")
        weight.data = w[None]


def make_problem(kind: str, seed: int) -> Problem:
    """Return a random problem at its minimum.

    Args:
        kind: of rho, see `KINDS`.
        seed: fixes data, start and rho; one without an isolated minimum is drawn again.
    """
    for attempt in range(20):
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1000 * attempt + seed)
            problem = KINDS[kind]()
        try:
            problem.settle()
        except ArithmeticError:
            continue
        return problem
    raise ArithmeticError(f"no minimum was found for {kind!r}, seed {seed}")


def _noise(num_draws: int) -> Problem:
    model = inject_noise(_network(norm=True), granularity="unit")
    for layer in noise_layers(model).values():
        layer.rho.data = torch.log(torch.empty_like(layer.rho).uniform_(0.2, 0.8))
    model = penalize(model, L2(_log_uniform(0.005, 0.05)), "*")
    problem = _classifier(model, lambda name: name.endswith("noise.rho"))
    seed = int(torch.randint(2**31, ()))
    # in pairs of opposite sign, as `CrossRegularizer` draws them
    draws = [Draw(seed + number, sign) for number in range(num_draws // 2) for sign in (1.0, -1.0)]
    return replace(problem, draws=draws)


def _output_temperature() -> Problem:
    problem = _noise(2)
    getattr(problem.model, TEMPERATURE_RHO).data.fill_(math.log(_log_uniform(0.5, 2)))
    return replace(problem, names=[TEMPERATURE_RHO])


def _weight_decay(each: bool) -> Problem:
    term = L2(1.0, each)
    model = penalize(_network(), term, "*")
    term.rho.data = torch.empty_like(term.rho).uniform_(math.log(0.01), math.log(0.1))
    return _classifier(model)


def _label_smoothing() -> Problem:
    model = penalize(_network(), LabelSmoothing(_log_uniform(0.02, 0.3)))
    return _classifier(penalize(model, L2(_log_uniform(0.01, 0.1)), "*"), lambda name: name == "rho_terms.0.rho")


def _loss_temperature() -> Problem:
    model = penalize(_network(), LossTemperature(_log_uniform(0.5, 3)))
    return _classifier(penalize(model, L2(_log_uniform(0.01, 0.1)), "*"), lambda name: name == "rho_terms.0.rho")


def _weight_norms() -> Problem:
    model = learn_norms(_network(), granularity="unit")
    for parameter in rho_parameters(model).values():
        parameter.data = torch.empty_like(parameter).uniform_(-0.5, 1)
    return _classifier(
        penalize(model, L2(_log_uniform(0.01, 0.1)), "*bias"), lambda name: not name.startswith("rho_terms")
    )


def _lasso() -> Problem:
    model = penalize(nn.Linear(12, 1, bias=False).double(), L1(_log_uniform(0.05, 0.3)), "*")
    return _regression(model, sparse=True)


def _own_penalty() -> Problem:
    return _regression(penalize(nn.Linear(12, 1, bias=False).double(), Smoothness(_log_uniform(0.01, 1)), "*"))


KINDS: dict[str, Callable[[], Problem]] = {
    "noise, 2 draws": lambda: _noise(2),
    "noise, 16 draws": lambda: _noise(16),
    "output temperature": _output_temperature,
    "weight norms": _weight_norms,
    "L2, one": lambda: _weight_decay(False),
    "L2, one a tensor": lambda: _weight_decay(True),
    "L1, where weights are 0": _lasso,
    "own penalty": _own_penalty,
    "label smoothing": _label_smoothing,
    "loss temperature": _loss_temperature,
}
"""Random problems of every kind of rho, not at their minimum yet."""


def _network(norm: bool = False) -> nn.Module:
    middle = [nn.LayerNorm(6, eps=0.1)] if norm else []  # with a smaller eps the weights before it shrink to nothing
    return nn.Sequential(nn.Linear(5, 6), *middle, nn.Tanh(), nn.Linear(6, 3)).double()


def _classifier(model: nn.Module, chosen: Callable[[str], bool] = lambda name: True) -> Problem:
    x = torch.randn(2 * ROWS, 5, dtype=torch.float64)
    logits = 2 * x @ torch.randn(5, 3, dtype=torch.float64) + torch.randn(2 * ROWS, 3, dtype=torch.float64)
    return _problem(model, Classification(), x, logits.argmax(1), chosen)


def _regression(model: nn.Module, sparse: bool = False) -> Problem:
    x = torch.randn(2 * ROWS, 12, dtype=torch.float64)
    weights = torch.randn(12, 1, dtype=torch.float64) * (torch.rand(12, 1) < 0.5) if sparse else _smooth(12)
    y = x @ weights + torch.randn(2 * ROWS, 1, dtype=torch.float64)
    return _problem(model, GaussianRegression(), x, y, lambda name: True, sparse)


def _smooth(size: int) -> Tensor:
    return torch.sin(torch.linspace(0, 3, size, dtype=torch.float64) + 6 * torch.rand(()))[:, None]


def _problem(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, chosen: Callable[[str], bool], sparse: bool = False
) -> Problem:
    names = [name for name in rho_parameters(model) if chosen(name) and name != TEMPERATURE_RHO]
    return Problem(model, loss, (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:]), names, [Draw(0)], sparse)


def _log_uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(math.log(low), math.log(high)).exp())


def _flat(values: Sequence[Tensor]) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])
