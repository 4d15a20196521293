"""How sharply theta is asked to fit the targets, as rho: label smoothing, and the temperature of the training loss.

Both change the training loss alone. The held-out loss stays the plain one, so only an estimator that follows theta's
response can learn them; see `crossreg.regularizers.penalties`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.losses import Classification
from crossreg.regularizers.base import Hyperparameter
from crossreg.regularizers.penalties import Term, term_regularizer

__all__ = ["LABEL_SMOOTHING", "LOSS_TEMPERATURE", "LabelSmoothing", "LossTemperature"]

_SMOOTHING = Hyperparameter(
    "label_smoothing",
    help="share of the uniform distribution in the targets of the training loss",
    unit="share",
    default=0.05,
    range=(0.002, 0.5),
    scale="logit",
)
_LOSS_TEMPERATURE = Hyperparameter(
    "loss_temperature",
    help="what logits are divided by in the training loss",
    unit="factor",
    default=1.0,
    range=(0.2, 5.0),
)


class _OfClasses(Term):
    """A term of the cross-entropy of classes."""

    @abstractmethod
    def change(self, output: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the cross-entropy."""

    def added(self, model: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the training loss, a scalar.

        Args:
            model: plays no part.
            output: logits `[B, C, ...]` or `[B, ..., C]`.
            target: classes `[B, ...]`, int64; -100 is left out.

        Raises:
            UserError: targets that are no classes.
        """
        if target.is_floating_point() or output.ndim < 2:
            raise UserError(
                f"{type(self).__name__} is for classification: logits (batch, classes) and classes (batch); given are "
                f"{tuple(output.shape)} and {tuple(target.shape)} {str(target.dtype).removeprefix('torch.')}"
            )
        return self.change(Classification().classes_first(output, target.shape), target)


class LabelSmoothing(_OfClasses):
    """Targets that are a mixture of the class and the uniform distribution; rho is the log odds of the latter's share.

        loss = (1 - smoothing) CE(output, target) + smoothing CE(output, uniform)

    Args:
        smoothing: start value, in (0, 1).

    Source: Szegedy et al. 2016, arXiv:1512.00567, equation 7.
    """

    def __init__(self, smoothing: float = 0.05) -> None:
        super().__init__()
        if not 0 < smoothing < 1:
            raise UserError(f"smoothing is {smoothing!r}; it must lie between 0 and 1")
        self.rho = nn.Parameter(_SMOOTHING.unconstrained(smoothing), requires_grad=False)

    @property
    def smoothing(self) -> Tensor:
        """The share of the uniform distribution, in (0, 1)."""
        return _SMOOTHING.natural(self.rho)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the share."""
        return [_SMOOTHING.of_rho(self.rho)]

    def change(self, output: Tensor, target: Tensor) -> Tensor:
        """Return smoothing (CE(output, uniform) - CE(output, target))."""
        logs = F.log_softmax(output, dim=1)
        return self.smoothing.to(logs) * (-logs.mean() - F.nll_loss(logs, target))


class LossTemperature(_OfClasses):
    """Logits divided by a temperature in the training loss: above 1, theta goes on widening margins; below, it stops.

        loss = temperature^2 CE(output / temperature, target)

    The factor keeps the size of the gradient where the network knows nothing yet. The temperature of predictions is
    another one; see `crossreg.temperature`.

    Args:
        temperature: positive start value.

    Source: Hinton, Vinyals, Dean 2015, arXiv:1503.02531 (the factor); Agarwala et al. 2020, arXiv:2010.07344.
    """

    def __init__(self, temperature: float = 1.0) -> None:
        super().__init__()
        if not 0 < temperature < float("inf"):
            raise UserError(f"temperature is {temperature!r}; it must be a positive finite number")
        self.rho = nn.Parameter(_LOSS_TEMPERATURE.unconstrained(temperature), requires_grad=False)

    @property
    def temperature(self) -> Tensor:
        """What the logits are divided by, positive."""
        return _LOSS_TEMPERATURE.natural(self.rho)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the temperature."""
        return [_LOSS_TEMPERATURE.of_rho(self.rho)]

    def change(self, output: Tensor, target: Tensor) -> Tensor:
        """Return temperature^2 CE(output / temperature, target) - CE(output, target)."""
        tau = self.temperature.to(output)
        return tau.square() * F.cross_entropy(output / tau, target) - F.cross_entropy(output, target)


LABEL_SMOOTHING = term_regularizer(LabelSmoothing, _SMOOTHING)
LOSS_TEMPERATURE = term_regularizer(LossTemperature, _LOSS_TEMPERATURE)
