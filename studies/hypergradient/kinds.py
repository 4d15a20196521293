"""Random small problems, one kind for every kind of rho."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace

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
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, noise_layers
from crossreg.studies.hypergradient.problem import HypergradientProblem

__all__ = ["KINDS", "make_problem"]

ROWS = 30
"""Examples of the training split, and of the reg split."""


def make_problem(kind: str, seed: int) -> HypergradientProblem:
    """Return a random problem at its minimum.

    Args:
        kind: a name of `KINDS`.
        seed: fixes data, start and rho; a problem without an isolated minimum is drawn again.
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


def _noise(num_draws: int) -> HypergradientProblem:
    model = inject_noise(_network(norm=True), granularity="unit")
    for layer in noise_layers(model).values():
        layer.rho.data = torch.log(torch.empty_like(layer.rho).uniform_(0.2, 0.8))
    model = penalize(model, L2(_log_uniform(0.005, 0.05)), "*")
    problem = _classifier(model, lambda name: name.endswith("noise.rho"))
    seed = int(torch.randint(2**31, ()))
    # in pairs of opposite sign, as `CrossRegularizer` draws them
    draws = [Draw(seed + number, sign) for number in range(num_draws // 2) for sign in (1.0, -1.0)]
    return replace(problem, draws=draws)


def _output_temperature() -> HypergradientProblem:
    problem, name = _noise(2), "output_temperature.0.rho"
    rho_parameters(problem.model)[name].data.fill_(math.log(_log_uniform(0.5, 2)))
    return replace(problem, names=[name])


def _weight_decay(each: bool) -> HypergradientProblem:
    term = L2(1.0, each)
    model = penalize(_network(), term, "*")
    term.rho.data = torch.empty_like(term.rho).uniform_(math.log(0.01), math.log(0.1))
    return _classifier(model)


def _label_smoothing() -> HypergradientProblem:
    model = penalize(_network(), LabelSmoothing(_log_uniform(0.02, 0.3)))
    return _classifier(penalize(model, L2(_log_uniform(0.01, 0.1)), "*"), lambda name: name == "rho_terms.0.rho")


def _loss_temperature() -> HypergradientProblem:
    model = penalize(_network(), LossTemperature(_log_uniform(0.5, 3)))
    return _classifier(penalize(model, L2(_log_uniform(0.01, 0.1)), "*"), lambda name: name == "rho_terms.0.rho")


def _weight_norms() -> HypergradientProblem:
    model = learn_norms(_network(), granularity="unit")
    for parameter in rho_parameters(model).values():
        parameter.data = torch.empty_like(parameter).uniform_(-0.5, 1)
    return _classifier(
        penalize(model, L2(_log_uniform(0.01, 0.1)), "*bias"), lambda name: not name.startswith("rho_terms")
    )


def _lasso() -> HypergradientProblem:
    model = penalize(nn.Linear(12, 1, bias=False).double(), L1(_log_uniform(0.05, 0.3)), "*")
    return _regression(model, sparse=True)


def _own_penalty() -> HypergradientProblem:
    return _regression(penalize(nn.Linear(12, 1, bias=False).double(), Smoothness(_log_uniform(0.01, 1)), "*"))


KINDS: dict[str, Callable[[], HypergradientProblem]] = {
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
"""Every kind of rho by name, with a function that draws a random problem, not at its minimum yet."""


def _network(norm: bool = False) -> nn.Module:
    # with a smaller eps the weights before the normalization would shrink to nothing
    middle = [nn.LayerNorm(6, eps=0.1)] if norm else []
    return nn.Sequential(nn.Linear(5, 6), *middle, nn.Tanh(), nn.Linear(6, 3)).double()


def _classifier(model: nn.Module, chosen: Callable[[str], bool] = lambda name: True) -> HypergradientProblem:
    x = torch.randn(2 * ROWS, 5, dtype=torch.float64)
    logits = 2 * x @ torch.randn(5, 3, dtype=torch.float64) + torch.randn(2 * ROWS, 3, dtype=torch.float64)
    return _problem(model, Classification(), x, logits.argmax(1), chosen)


def _regression(model: nn.Module, sparse: bool = False) -> HypergradientProblem:
    x = torch.randn(2 * ROWS, 12, dtype=torch.float64)
    weights = torch.randn(12, 1, dtype=torch.float64) * (torch.rand(12, 1) < 0.5) if sparse else _smooth(12)
    y = x @ weights + torch.randn(2 * ROWS, 1, dtype=torch.float64)
    return _problem(model, GaussianRegression(), x, y, lambda name: True, sparse)


def _smooth(size: int) -> Tensor:
    return torch.sin(torch.linspace(0, 3, size, dtype=torch.float64) + 6 * torch.rand(()))[:, None]


def _problem(
    model: nn.Module, loss: Loss, x: Tensor, y: Tensor, chosen: Callable[[str], bool], sparse: bool = False
) -> HypergradientProblem:
    names = [name for name in rho_parameters(model) if chosen(name)]
    return HypergradientProblem(model, loss, (x[:ROWS], y[:ROWS]), (x[ROWS:], y[ROWS:]), names, [Draw(0)], sparse)


def _log_uniform(low: float, high: float) -> float:
    return float(torch.empty(()).uniform_(math.log(low), math.log(high)).exp())
