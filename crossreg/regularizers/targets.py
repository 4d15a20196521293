"""How sharply theta is asked to fit the targets, as rho: label smoothing, and the temperature of the training loss.

Both change the training loss alone. The held-out loss stays the plain one, so only an estimator that follows theta's
response can learn them; see `crossreg.regularizers.penalties`.
"""

from __future__ import annotations

from abc import abstractmethod

import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.regularizers.penalties import Term
from crossreg.core.rho import rho_from_sigma, sigma_from_rho

__all__ = ["LabelSmoothing", "LossTemperature"]


class _OfClasses(Term):
    """A term of the cross-entropy of classes."""

    @abstractmethod
    def change(self, output: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the cross-entropy."""

    def added(self, model: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the training loss, a scalar.

        Args:
            model: plays no part.
            output: logits `[B, C, ...]`.
            target: classes `[B, ...]`, int64.

        Raises:
            UserError: targets that are no classes.
        """
        if target.is_floating_point() or output.ndim < 2 or target.shape != output.shape[:1] + output.shape[2:]:
            raise UserError(
                f"{type(self).__name__} is for classification: logits (batch, classes) and classes (batch); given are "
                f"{tuple(output.shape)} and {tuple(target.shape)} {str(target.dtype).removeprefix('torch.')}"
            )
        return self.change(output, target)


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
        self.rho = nn.Parameter(rho_from_sigma(smoothing / (1 - smoothing)), requires_grad=False)

    @property
    def smoothing(self) -> Tensor:
        """The share of the uniform distribution, in (0, 1)."""
        odds = sigma_from_rho(self.rho)
        return odds / (1 + odds)

    def learned(self) -> dict[str, Tensor]:
        """Return the share."""
        return {"label_smoothing": self.smoothing}

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
        self.rho = nn.Parameter(rho_from_sigma(temperature), requires_grad=False)

    @property
    def temperature(self) -> Tensor:
        """What the logits are divided by, positive."""
        return sigma_from_rho(self.rho)

    def learned(self) -> dict[str, Tensor]:
        """Return the temperature."""
        return {"loss_temperature": self.temperature}

    def change(self, output: Tensor, target: Tensor) -> Tensor:
        """Return temperature^2 CE(output / temperature, target) - CE(output, target)."""
        tau = self.temperature.to(output)
        return tau.square() * F.cross_entropy(output / tau, target) - F.cross_entropy(output, target)
