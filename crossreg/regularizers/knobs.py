"""Regularization settings by name, set on a live training: what a search changes and a replay repeats.

A knob is named like the metric that records it. Set after a checkpoint was loaded, a knob wins over what was saved.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import nn

from crossreg import metrics
from crossreg.core.errors import UserError, nearest
from crossreg.regularizers.noise import noise_layers
from crossreg.core.rho import TEMPERATURE_NAME, rho_from_sigma, temperature, unwrap

__all__ = ["DROPOUT", "WEIGHT_DECAY", "get_knobs", "set_knobs", "sigma_knobs"]

WEIGHT_DECAY, DROPOUT = "weight_decay", "dropout"


def sigma_knobs(model: nn.Module) -> list[str]:
    """Return the names of the noise scales, one a layer, first layer first."""
    return [metrics.sigma(index, name) for index, name in enumerate(noise_layers(model))]


def get_knobs(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, float]:
    """Return the present value of every knob; a layer with a sigma a unit is given by their mean."""
    model = unwrap(model)
    values = {
        name: float(noise.sigma.detach().mean())
        for name, noise in zip(sigma_knobs(model), noise_layers(model).values(), strict=True)
    }
    if values:
        values[metrics.TEMPERATURE] = float(temperature(model))
    values[WEIGHT_DECAY] = float(optimizer.param_groups[0].get("weight_decay", 0.0))
    if layers := _dropouts(model):
        values[DROPOUT] = layers[0].p
    return values


def set_knobs(model: nn.Module, optimizer: torch.optim.Optimizer, values: Mapping[str, float]) -> None:
    """Set knobs, in place.

    Args:
        model: wrapped or not.
        optimizer: of theta.
        values: by name: `sigma/<index>_<layer>` and `rho/temperature` (positive), `weight_decay` (at least 0),
            `dropout` (a probability below 1, for every dropout layer).

    Raises:
        UserError: a knob that this training does not have, or a value out of range.
    """
    model = unwrap(model)
    setters = _setters(model, optimizer)
    for name, value in values.items():
        if name not in setters:
            raise UserError(
                f"this training has no knob {name!r}{nearest(name, setters)}; it has {', '.join(setters) or 'none'}"
            )
        low, high = _RANGES.get(name, (1e-7, 1e7))
        if not low <= value <= high:
            raise UserError(f"knob {name!r} is {value!r}; it must lie in {low:g}..{high:g}")
        setters[name](float(value))


_RANGES = {WEIGHT_DECAY: (0.0, 1e3), DROPOUT: (0.0, 0.99)}


def _setters(model: nn.Module, optimizer: torch.optim.Optimizer) -> dict[str, Callable[[float], None]]:
    setters: dict[str, Callable[[float], None]] = {}
    for name, noise in zip(sigma_knobs(model), noise_layers(model).values(), strict=True):
        setters[name] = lambda value, rho=noise.rho: _fill(rho, value)  # type: ignore[misc]
    if setters:
        setters[metrics.TEMPERATURE] = lambda value: _fill(getattr(model, TEMPERATURE_NAME), value)
    if any("weight_decay" in group for group in optimizer.param_groups):
        setters[WEIGHT_DECAY] = lambda value: _set_weight_decay(optimizer, value)
    if layers := _dropouts(model):
        setters[DROPOUT] = lambda value: _set_dropout(layers, value)
    return setters


@torch.no_grad()
def _fill(rho: nn.Parameter, sigma: float) -> None:
    rho.copy_(rho_from_sigma(sigma).to(rho).expand_as(rho))


def _set_weight_decay(optimizer: torch.optim.Optimizer, value: float) -> None:
    for group in optimizer.param_groups:
        group["weight_decay"] = value


def _set_dropout(layers: list[nn.modules.dropout._DropoutNd], p: float) -> None:
    for layer in layers:
        layer.p = p


def _dropouts(model: nn.Module) -> list[nn.modules.dropout._DropoutNd]:
    return [module for module in model.modules() if isinstance(module, nn.modules.dropout._DropoutNd)]
