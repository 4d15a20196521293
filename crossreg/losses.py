"""Losses, and the contract between a loss and the rho step.

The rho step averages the *prediction* over noise draws and takes the loss of that average. What is averaged depends
on the task, so a loss says it in two halves: `per_draw` turns one output into what must be kept of it, and
`of_draws` turns the K kept pieces into the loss of the averaged prediction. For a likelihood the piece is the
log-likelihood of the target, and the loss of the average is the negative log of a mixture,

    L = -mean_b log( 1/K sum_k p(y_b | x_b, eps_k) ),

computed in log space, so a confident network cannot underflow it.

Your own loss extends `Loss`, or `Likelihood` if it has a log-likelihood:

    class MeanSquaredErrorOfAverage(Loss):
        def __call__(self, output, target):                   # the theta step: one draw
            return F.mse_loss(output, target)
        def per_draw(self, output, target, temperature):      # kept of each draw
            return output
        def of_draws(self, draws, target):                    # draws: [K, ...]
            return F.mse_loss(draws.mean(0), target)
        def predict(self, output, temperature):               # what `crossreg.predict` averages
            return output
"""

from __future__ import annotations

import math
from abc import ABC, abstractmethod

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.errors import UserError

__all__ = ["Classification", "GaussianRegression", "Likelihood", "Loss", "as_loss"]


class Loss(ABC):
    """What the theta step minimizes on training data and the rho step on regularization data.

    Every method works on tensors of one batch; the first dimension is the batch, and losses are means over it, so
    that shards of a batch on several ranks add up.
    """

    @abstractmethod
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the scalar theta loss of one model output."""

    @abstractmethod
    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """Return what `of_draws` needs of one noise draw, `[B, ...]`, differentiable in output and temperature."""

    @abstractmethod
    def of_draws(self, draws: Tensor, target: Tensor) -> Tensor:
        """Return the scalar loss of the averaged prediction, given `per_draw` of K draws as `[K, B, ...]`."""

    @abstractmethod
    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        """Return one draw's prediction, `[B, ...]`, which prediction averages over draws."""


class Likelihood(Loss):
    """A loss that is a negative log-likelihood: averaging predictions is a mixture of likelihoods."""

    def of_draws(self, draws: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood of the mixture, from log-likelihoods `[K, B, ...]`."""
        return -(torch.logsumexp(draws, dim=0) - math.log(draws.shape[0])).mean()


class Classification(Likelihood):
    """Cross-entropy. Output: logits `[B, C, ...]`; target: classes `[B, ...]` int64. The temperature divides logits.

    Source: temperature scaling, Guo et al. 2017 (arXiv 1706.04599).
    """

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of one draw."""
        return F.cross_entropy(_wide(output), target)

    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """Return log p(target), `[B, ...]`."""
        return -F.nll_loss(self._log_probabilities(output, temperature), target, reduction="none")

    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        """Return class probabilities, `[B, C, ...]`."""
        return self._log_probabilities(output, temperature).exp()

    @staticmethod
    def _log_probabilities(output: Tensor, temperature: Tensor) -> Tensor:
        if output.ndim < 2 or output.shape[1] < 2:
            raise UserError(
                f"a classifier's output has shape {tuple(output.shape)}; it must be (batch, classes) with at least 2 "
                "classes. For numbers instead of classes use loss='regression'"
            )
        return F.log_softmax(_wide(output) / temperature, dim=1)


class GaussianRegression(Likelihood):
    """Gaussian likelihood around the output. Output and target: `[B, ...]`, float.

    The standard deviation of the observation is the temperature (1 where the model has none), learned as rho on
    the regularization split; the theta step is half the squared error, whose minimizer does not depend on it.
    """

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return half the mean squared error of one draw."""
        output = _wide(output)
        return 0.5 * F.mse_loss(output, self._like(target, output))

    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """Return log N(target; output, temperature^2), summed over all but the batch dimension: `[B]`."""
        output = _wide(output)
        z = (self._like(target, output) - output) / temperature
        log_density = -0.5 * z.square() - temperature.log() - 0.5 * math.log(2 * math.pi)
        return log_density.flatten(1).sum(1) if log_density.ndim > 1 else log_density

    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        """Return the mean of the observation, `[B, ...]`."""
        return _wide(output)

    @staticmethod
    def _like(target: Tensor, output: Tensor) -> Tensor:
        if target.shape != output.shape:
            # [B] against [B, 1] would broadcast to [B, B] and learn nonsense silently
            if target.numel() != output.numel():
                raise UserError(f"target has shape {tuple(target.shape)}, the model's output {tuple(output.shape)}")
            target = target.reshape(output.shape)
        return target.to(output.dtype)


def _wide(output: Tensor) -> Tensor:
    # half precision would round the likelihoods that rho learns from and that calibration measures
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def as_loss(loss: Loss | nn.Module | str) -> Loss:
    """Return a `Loss` for a name ("classification", "regression"), `nn.CrossEntropyLoss()`, `nn.MSELoss()` or a Loss.

    Raises:
        UserError: anything else, with the contract in the message.
    """
    if isinstance(loss, Loss):
        return loss
    if loss == "classification" or (isinstance(loss, nn.CrossEntropyLoss) and _is_plain(loss)):
        return Classification()
    if loss == "regression" or (isinstance(loss, nn.MSELoss) and loss.reduction == "mean"):
        return GaussianRegression()
    raise UserError(
        f"loss is {loss!r}; allowed are 'classification', 'regression', a plain nn.CrossEntropyLoss() or nn.MSELoss(), "
        "or a subclass of crossreg.Loss, which says how predictions of several noise draws are averaged"
    )


def _is_plain(loss: nn.CrossEntropyLoss) -> bool:
    return loss.weight is None and loss.label_smoothing == 0 and loss.reduction == "mean" and loss.ignore_index == -100
