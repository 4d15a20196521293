"""What is learned and what is used: the one place that converts between rho and sigma.

`rho` is the unconstrained tensor that an optimizer moves; `sigma` is the positive noise scale it stands for. The
map is the exponential, sigma = exp(rho): a step of the optimizer is a step in *relative* size, so sigma stays
positive, crosses 0.01 to 10 in as many steps as it takes to come back, and does not bounce around zero.
The comparison that decided it is in `docs/method/noise.md`.
"""

from __future__ import annotations

from collections import Counter
from typing import Any

import torch
from torch import Tensor, nn

__all__ = [
    "TEMPERATURE_NAME",
    "AttachedModules",
    "RhoModule",
    "learned",
    "rho_from_sigma",
    "rho_parameters",
    "sigma_from_rho",
    "temperature",
    "unwrap",
]

TEMPERATURE_NAME = "rho_temperature"
"""Attribute of the model that holds the logarithm of its output temperature, a scalar parameter."""

# exp(rho) stays finite in float32 however far an optimizer is pushed
_RHO_LIMIT = 16.0


def sigma_from_rho(rho: Tensor) -> Tensor:
    """Return the positive scale exp(rho), of the same shape; rho is limited to +-16 (sigma 1e-7 to 9e6)."""
    return rho.clamp(-_RHO_LIMIT, _RHO_LIMIT).exp()


def rho_from_sigma(sigma: float | Tensor) -> Tensor:
    """Return the logarithm of a positive scale; the inverse of `sigma_from_rho` within its limits."""
    return torch.as_tensor(sigma, dtype=torch.get_default_dtype()).log().clamp(-_RHO_LIMIT, _RHO_LIMIT)


def temperature(model: nn.Module) -> Tensor:
    """Return the model's output temperature, a positive scalar; 1 where the model holds none."""
    rho = getattr(unwrap(model), TEMPERATURE_NAME, None)
    return torch.ones(()) if rho is None else sigma_from_rho(rho)


class RhoModule(nn.Module):
    """A module whose own parameters are regularization parameters: learned on held-out data, never by theta.

    Attributes:
        direct: whether the held-out loss depends on them with theta fixed; if not, only an estimator that follows
            theta's response can learn them.
    """

    direct = True

    def learned(self) -> dict[str, Tensor]:
        """Return what is learned in its natural unit, by a short name: scalars, or one value a part."""
        return {}


class AttachedModules(nn.ModuleList):
    """Holds modules that a model was given beside its layers."""

    def forward(self, x: Any) -> Any:
        """Return what comes: the last module of an `nn.Sequential` is called like the others."""
        return x


def learned(model: nn.Module) -> dict[str, float]:
    """Return what a model has learned beside noise scales and temperature, in natural units.

    Returns:
        A number a name, e.g. `{"l2": 0.003, "shift": 1.9}`; where several share a name, the next is `l2_1`; one that
        has a value a tensor is given by their geometric mean.
    """
    found: dict[str, float] = {}
    seen: Counter[str] = Counter()
    for module in unwrap(model).modules():
        for name, value in module.learned().items() if isinstance(module, RhoModule) else ():
            found[f"{name}_{seen[name]}" if seen[name] else name] = float(value.detach().log().mean().exp())
            seen[name] += 1
    return found


def rho_parameters(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return every learned regularization parameter by its name in `model.named_parameters()`, the temperature last."""
    model = unwrap(model)
    found = {
        f"{prefix}.{name}" if prefix else name: parameter
        for prefix, module in model.named_modules()
        if isinstance(module, RhoModule)
        for name, parameter in module.named_parameters(recurse=False)
    }
    rho = getattr(model, TEMPERATURE_NAME, None)
    return found if rho is None else {**found, TEMPERATURE_NAME: rho}


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's module inside `DistributedDataParallel` and `torch.compile` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner
