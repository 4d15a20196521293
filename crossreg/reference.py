"""The slow, literal transcription of the method, which the fast path is tested against.

One process, one graph over all K draws, probabilities instead of log space, plain gradient descent, the paper's
letters. Nothing here is meant to be fast or robust.

    h = g(norm(u) + sigma * eps)                                         noise after normalization
    theta <- theta - eta_theta * d L_train(theta, rho) / d theta         sigma a constant, one draw
    rho   <- rho   - eta_rho   * d L_reg(theta, rho) / d rho             loss of the mean of K draws, theta fixed

Source: arXiv 2506.19755.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from crossreg.core.random import forked_rng, seed_device
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, noise_layers, sampling, set_draw
from crossreg.regularizers.temperature import temperature

__all__ = ["rho_gradient", "rho_loss", "rho_step", "theta_step"]


def rho_loss(model: nn.Module, x: Tensor, y: Tensor, draws: Sequence[Draw]) -> Tensor:
    """Return L_reg: minus the mean log of the K-averaged probability of the right class; one graph over K draws."""
    probability = torch.zeros(())
    with forked_rng(x.device), sampling(model, learning=True):
        for draw in draws:
            set_draw(model, draw, x.device)
            p = torch.softmax(model(x) / temperature(model), dim=1)
            probability = probability + p[torch.arange(len(y)), y] / len(draws)
    return -probability.log().mean()


def rho_gradient(model: nn.Module, x: Tensor, y: Tensor, draws: Sequence[Draw]) -> dict[str, Tensor]:
    """Return d L_reg / d rho for every rho by name."""
    rho = rho_parameters(model)
    for parameter in rho.values():
        parameter.requires_grad_(True)
    gradients = torch.autograd.grad(rho_loss(model, x, y, draws), list(rho.values()))
    for parameter in rho.values():
        parameter.requires_grad_(False)
    return dict(zip(rho, gradients, strict=True))


def rho_step(model: nn.Module, x: Tensor, y: Tensor, draws: Sequence[Draw], eta_rho: float) -> None:
    """Do one plain gradient step of rho on a regularization batch."""
    gradients = rho_gradient(model, x, y, draws)
    with torch.no_grad():
        for name, rho in rho_parameters(model).items():
            rho.sub_(eta_rho * gradients[name])


def theta_step(model: nn.Module, x: Tensor, y: Tensor, seed: int, eta_theta: float) -> None:
    """Do one plain gradient step of theta on a training batch, with one noise draw and sigma a constant."""
    rho = {id(parameter) for parameter in rho_parameters(model).values()}
    theta = [parameter for parameter in model.parameters() if id(parameter) not in rho]
    model.train()
    assert not any(noise.learning for noise in noise_layers(model).values())
    with forked_rng(x.device):
        seed_device(x.device, seed)
        loss = nn.functional.cross_entropy(model(x), y)
    gradients = torch.autograd.grad(loss, theta)
    with torch.no_grad():
        for parameter, gradient in zip(theta, gradients, strict=True):
            parameter.sub_(eta_theta * gradient)
