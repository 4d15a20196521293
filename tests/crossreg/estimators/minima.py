"""Minima of the training objective, to as many digits as float64 has."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crossreg import training_loss
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, noise_layers

Data = tuple[Tensor, Tensor]


def objective(model: nn.Module, loss: Any, data: Data, draws: list[Draw]) -> Tensor:
    """C1, written out: the loss averaged over draws, and the penalties."""
    values = []
    for draw in draws:
        torch.manual_seed(draw.seed)
        for layer in noise_layers(model).values():
            layer.sign = draw.sign
        values.append(training_loss(model, loss, model.train()(data[0]), data[1]))
    return torch.stack(values).mean()


def settle(model: nn.Module, loss: Any, data: Data, draws: list[Draw]) -> None:
    """Take theta to the minimum of C1."""
    rho = {id(p) for p in rho_parameters(model).values()}
    theta = [p for p in model.parameters() if id(p) not in rho]
    solver = torch.optim.LBFGS(theta, max_iter=200, line_search_fn="strong_wolfe")

    def closure() -> float:
        solver.zero_grad()
        value = objective(model, loss, data, draws)
        value.backward()
        return float(value.detach())

    solver.step(closure)
    solver.zero_grad()
    for _ in range(20):  # Newton's steps for the digits that a line search cannot see
        slope = flat(torch.autograd.grad(objective(model, loss, data, draws), theta, create_graph=True))
        if float(slope.detach().abs().max()) < 1e-12:
            return
        hessian = torch.stack([flat(torch.autograd.grad(s, theta, retain_graph=True)) for s in slope])
        step = torch.linalg.solve(hessian, slope.detach()).split([p.numel() for p in theta])
        for parameter, change in zip(theta, step, strict=True):
            parameter.data -= change.view_as(parameter)
    raise AssertionError("no minimum was found")


def flat(values: Any) -> Tensor:
    return torch.cat([value.reshape(-1) for value in values])
