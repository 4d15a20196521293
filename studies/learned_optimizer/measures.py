"""How sharp a minimum is, by several measures."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.func import grad, grad_and_value

from crossreg.meta.losses import Function, hessian_vector_product

__all__ = ["flatness", "sharpness", "top_eigenvalue"]

_ASCENT_STEPS, _POWER_STEPS = 20, 20
RADIUS, RELATIVE_RADIUS = 0.5, 0.03


def sharpness(f: Function, theta: Tensor, radius: float) -> float:
    """Return how much higher a function gets within a radius, by projected gradient ascent.

    Args:
        f: the function.
        theta: `[P]`.
        radius: Euclidean.

    Source: the ascent by which arXiv:2510.08968 measures it; number and size of its steps are ours.
    """
    start = highest = float(f(theta))
    move = torch.zeros_like(theta)
    for _ in range(_ASCENT_STEPS):
        slope = grad(f)(theta + move)
        move = move + radius / 5 * slope / (slope.norm() + 1e-12)
        move = move * min(1.0, radius / max(float(move.norm()), 1e-12))
        highest = max(highest, float(f(theta + move)))
    return highest - start


def top_eigenvalue(f: Function, theta: Tensor) -> float:
    """Return the eigenvalue of the Hessian that is largest in size, by power iteration."""
    vector = torch.randn(theta.shape, generator=torch.Generator().manual_seed(0)).to(theta)
    value = 0.0
    for _ in range(_POWER_STEPS):
        vector = vector / (vector.norm() + 1e-12)
        product = hessian_vector_product(f, theta, vector)
        value = float(vector @ product)
        vector = product
    return value


def flatness(f: Function, theta: Tensor) -> dict[str, float]:
    """Return every measure at weights `[P]`, by name."""
    slope, _ = grad_and_value(f)(theta)
    norm = float(theta.norm())
    return {
        "sharpness": sharpness(f, theta, RADIUS),
        "relative_sharpness": sharpness(f, theta, RELATIVE_RADIUS * norm),
        "gradient_norm": float(slope.norm()),
        "eigenvalue": top_eigenvalue(f, theta),
    }
