"""The output temperature: what the model's outputs are divided by in predictions and in the held-out loss.

Source: temperature scaling, Guo et al. 2017, arXiv:1706.04599; here it is learned with everything else that is rho.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.core.modules import AttachedModules, rho_device_and_dtype, unwrap
from crossreg.regularizers.base import Hyperparameter, Regularizer, RhoModule

__all__ = ["TEMPERATURE", "Temperature", "learn_temperature", "remove_temperature", "temperature"]

_ATTRIBUTE = "output_temperature"

_TEMPERATURE = Hyperparameter(
    "temperature",
    help="output temperature: divides logits in predictions; of a regression the standard deviation of an observation",
    unit="factor",
    default=1.0,
    range=(0.2, 5.0),
    direct=True,
)


class Temperature(RhoModule):
    """Holds the output temperature; the theta step does not use it.

    Args:
        value: positive start value.
    """

    def __init__(self, value: float = 1.0) -> None:
        super().__init__()
        _TEMPERATURE.check(value)
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        self.rho = nn.Parameter(_TEMPERATURE.unconstrained(value), requires_grad=False)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the temperature."""
        return [_TEMPERATURE.of_rho(self.rho)]


def learn_temperature(model: nn.Module, value: float = 1.0) -> nn.Module:
    """Give a model an output temperature that is rho, in place; its state gains one key, `output_temperature.0.rho`.

    Args:
        model: not wrapped yet.
        value: where it starts.

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, one that has a temperature, or a value that is not positive.
    """
    if model is not unwrap(model):
        raise UserError("learn_temperature was given a wrapped model; call it first, then wrap with DDP")
    if hasattr(model, _ATTRIBUTE):
        raise UserError("the model has an output temperature already")
    model.add_module(_ATTRIBUTE, AttachedModules([Temperature(value).to(*rho_device_and_dtype(model, model))]))
    return model


def remove_temperature(model: nn.Module) -> None:
    """Take the output temperature out of a model, if it has one."""
    model = unwrap(model)
    if hasattr(model, _ATTRIBUTE):
        delattr(model, _ATTRIBUTE)


def temperature(model: nn.Module) -> Tensor:
    """Return the model's output temperature, a positive scalar; 1 where the model holds none."""
    held = getattr(unwrap(model), _ATTRIBUTE, None)
    return torch.ones(()) if held is None else _TEMPERATURE.natural(held[0].rho)


def _attach(model: nn.Module, value: float | None) -> None:
    learn_temperature(model, 1.0 if value is None else value)


TEMPERATURE = Regularizer(_TEMPERATURE, _attach, remove_temperature, exported=True)
