"""Hyperparameters that PyTorch has already: weight decay is the optimizer's, dropout the model's. They have no rho."""

from __future__ import annotations

import torch
from torch import nn

from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap
from crossreg.regularizers.base import Hyperparameter, Regularizer
from crossreg.regularizers.noise import dropout_layers

__all__ = ["DROPOUT", "WEIGHT_DECAY"]

_WEIGHT_DECAY = Hyperparameter(
    "weight_decay",
    help="weight decay of the optimizer",
    unit="as the optimizer takes it",
    default=0.01,
    range=(1e-4, 1.0),
    learned_by_rho=False,
    bounds=(0.0, 1e3),
)
_DROPOUT = Hyperparameter(
    "dropout",
    help="probability of every dropout layer",
    unit="probability",
    default=0.5,
    range=(0.05, 0.8),
    scale="linear",
    learned_by_rho=False,
    bounds=(0.0, 0.99),
)


def _weight_decay(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[Hyperparameter]:
    groups = [] if optimizer is None else [group for group in optimizer.param_groups if "weight_decay" in group]

    def write(value: float) -> None:
        for group in groups:
            group["weight_decay"] = value

    return [_WEIGHT_DECAY.live(lambda: float(groups[0]["weight_decay"]), write)] if groups else []


def _dropout(model: nn.Module, optimizer: torch.optim.Optimizer | None) -> list[Hyperparameter]:
    layers = dropout_layers(unwrap(model))

    def write(value: float) -> None:
        for layer in layers:
            layer.p = value

    return [_DROPOUT.live(lambda: float(layers[0].p), write)] if layers else []


def _set_dropout(model: nn.Module, value: float | None) -> None:
    found = _dropout(model, None)
    if not found and value == 0:
        return
    if not found:
        raise UserError(
            f"{type(model).__name__} has no dropout layer whose probability could be set; build it with some, e.g. "
            "with model_options: {dropout: 0.5}"
        )
    assert _DROPOUT.default is not None
    found[0].set(_DROPOUT.default if value is None else value)


def _nothing(model: nn.Module, value: float | None = None) -> None:
    """Leave the model as it is."""


WEIGHT_DECAY = Regularizer(_WEIGHT_DECAY, _nothing, _nothing, find=_weight_decay)
DROPOUT = Regularizer(_DROPOUT, _set_dropout, _nothing, find=_dropout)
