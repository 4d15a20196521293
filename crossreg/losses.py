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

import copy
import functools
import inspect
import math
from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.calling import main_output
from crossreg.core.errors import UserError

__all__ = ["Classification", "GaussianRegression", "Likelihood", "Loss", "MultiLabel", "as_loss"]


class Loss(ABC):
    """What the theta step minimizes on training data and the rho step on regularization data.

    Every method works on tensors of one batch; the first dimension is the batch, and losses are means over it, weighted
    by `size` where several ranks have a shard each.
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

    def size(self, target: Tensor) -> float:
        """Return what the mean over a batch divides by, so that means of several batches can be put together."""
        return float(len(target))


class Likelihood(Loss):
    """A loss that is a negative log-likelihood: averaging predictions is a mixture of likelihoods."""

    def of_draws(self, draws: Tensor, target: Tensor) -> Tensor:
        """Return the negative log-likelihood of the mixture, from log-likelihoods `[K, B, ...]`."""
        return -(torch.logsumexp(draws, dim=0) - math.log(draws.shape[0])).mean()


class Classification(Likelihood):
    """Cross-entropy. Output: logits `[B, C, ...]` or `[B, ..., C]`; target: classes `[B, ...]`, whole numbers.

    The temperature divides logits. Where the classes are follows from the target's shape; both orders are refused where
    they fit alike, until `class_dim` says which. Weights and ignored targets count in the held-out loss too; label
    smoothing is a change of theta's loss alone.

    Args:
        weight: of each class, `[C]`, or None; a mean divides by the weights of its targets, as PyTorch's does.
        ignore_index: target that is left out, such as padding.
        label_smoothing: share of the uniform distribution in theta's targets, in [0, 1].
        class_dim: dimension of the output that holds the classes; None finds it out.

    Raises:
        UserError: outputs and targets that do not fit together.

    Source: temperature scaling, Guo et al. 2017 (arXiv 1706.04599).
    """

    def __init__(
        self,
        weight: Tensor | None = None,
        ignore_index: int = -100,
        label_smoothing: float = 0.0,
        class_dim: int | None = None,
    ) -> None:
        self.weight, self.ignore_index, self.label_smoothing = weight, ignore_index, label_smoothing
        self.class_dim = class_dim
        self._shape: torch.Size | None = None

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean cross-entropy of one draw, a scalar."""
        logits, target = self.classes_first(output, target.shape), _classes(target)
        weight = None if self.weight is None else self.weight.to(logits)
        return F.cross_entropy(logits, target, weight, None, self.ignore_index, None, "mean", self.label_smoothing)

    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """Return log p(target), `[B, ...]`; zero where the target is ignored."""
        logs = self._log_probabilities(output, temperature, target.shape)
        return -F.nll_loss(logs, _classes(target), ignore_index=self.ignore_index, reduction="none")

    def of_draws(self, draws: Tensor, target: Tensor) -> Tensor:
        """Return the weighted mean of the mixture's negative log-likelihood, from log-likelihoods `[K, B, ...]`."""
        if self.weight is None and (target.is_meta or not bool((target == self.ignore_index).any())):
            return super().of_draws(draws, target)
        weights = self._weights(target).to(draws)
        losses = math.log(draws.shape[0]) - torch.logsumexp(draws, dim=0)
        return (losses * weights).sum() / weights.sum().clamp_min(torch.finfo(weights.dtype).tiny)

    def size(self, target: Tensor) -> float:
        """Return the sum of the targets' weights; ignored ones have none."""
        return float(self._weights(target).sum())

    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        """Return class probabilities, `[B, C, ...]`."""
        return self._log_probabilities(output, temperature, self._shape).exp()

    def expecting(self, target: Tensor) -> Classification:
        """Return the same loss, whose predictions find the classes by this target's shape."""
        found = copy.copy(self)
        found._shape = target.shape
        return found

    def classes_first(self, output: Any, shape: torch.Size | None) -> Tensor:
        """Return logits `[B, C, ...]` for the output of a model and the shape of its targets (None: not known)."""
        output = _wide(main_output(output))
        if output.ndim < 2 or output.shape[1] < 2:
            raise UserError(
                f"a classifier's output has shape {tuple(output.shape)}; it must be (batch, classes) with at least 2 "
                "classes. For numbers instead of classes use loss='regression'"
            )
        return output.movedim(self._class_dim(output.shape, shape), 1)

    def _class_dim(self, output: torch.Size, target: torch.Size | None) -> int:
        if self.class_dim is not None:
            return self.class_dim
        if len(output) == 2 or (target is None and len(output) > 3):
            return 1
        first, last = output[:1] + output[2:] == target, output[:-1] == target
        if first != last:
            return 1 if first else -1
        if target is None or first:
            raise UserError(
                f"the model's output has shape {tuple(output)}, and the classes may be its second or its last "
                "dimension; say which: loss=Classification(class_dim=1) or class_dim=-1"
            )
        raise UserError(
            f"target has shape {tuple(target)} and the model's output {tuple(output)}; for classes the output has one "
            "dimension more, the second or the last"
        )

    def _weights(self, target: Tensor) -> Tensor:
        counts = target != self.ignore_index
        if self.weight is None:
            return counts.float()
        weight = self.weight.to(target.device)
        return torch.where(counts, weight[_classes(target).where(counts, 0)], 0.0)

    def _log_probabilities(self, output: Tensor, temperature: Tensor, shape: torch.Size | None) -> Tensor:
        return F.log_softmax(self.classes_first(output, shape) / temperature, dim=1)


class MultiLabel(Likelihood):
    """Binary cross-entropy of labels that do not exclude one another.

    Output: logits `[B, ...]`; target: as many, in 0..1. The temperature divides logits. Weights count in the held-out
    loss too.

    Args:
        weight: of the labels, broadcast to the target, or None.
        pos_weight: factor on the loss of labels that are 1, broadcast to the target, or None.

    Raises:
        UserError: outputs and targets of different shapes.
    """

    def __init__(self, weight: Tensor | None = None, pos_weight: Tensor | None = None) -> None:
        self.weight, self.pos_weight = weight, pos_weight

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return the mean binary cross-entropy of one draw, a scalar."""
        logits = _wide(main_output(output))
        weight, pos_weight = (None if w is None else w.to(logits) for w in (self.weight, self.pos_weight))
        return F.binary_cross_entropy_with_logits(logits, _like(target, logits), weight, pos_weight=pos_weight)

    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """Return log p of every label, `[B, ...]`."""
        logits = _wide(main_output(output))
        return -F.binary_cross_entropy_with_logits(logits / temperature, _like(target, logits), reduction="none")

    def of_draws(self, draws: Tensor, target: Tensor) -> Tensor:
        """Return the weighted mean over labels of the mixture's negative log-likelihood."""
        losses = math.log(draws.shape[0]) - torch.logsumexp(draws, dim=0)
        if self.weight is not None:
            losses = losses * self.weight.to(losses)
        if self.pos_weight is not None:
            losses = losses * (1 + (self.pos_weight.to(losses) - 1) * _like(target, losses))
        return losses.mean()

    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        """Return the probability of every label, `[B, ...]`."""
        return (_wide(main_output(output)) / temperature).sigmoid()


class GaussianRegression(Likelihood):
    """Gaussian likelihood around the output. Output and target: `[B, ...]`, float.

    The standard deviation of the observation is the temperature (1 where the model has none), learned as rho on
    the regularization split; the theta step is half the squared error, whose minimizer does not depend on it.
    """

    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        """Return half the mean squared error of one draw."""
        output = _wide(main_output(output))
        return 0.5 * F.mse_loss(output, _like(target, output))

    def per_draw(self, output: Tensor, target: Tensor, temperature: Tensor) -> Tensor:
        """Return log N(target; output, temperature^2), summed over all but the batch dimension: `[B]`."""
        output = _wide(main_output(output))
        z = (_like(target, output) - output) / temperature
        log_density = -0.5 * z.square() - temperature.log() - 0.5 * math.log(2 * math.pi)
        return log_density.flatten(1).sum(1) if log_density.ndim > 1 else log_density

    def predict(self, output: Tensor, temperature: Tensor) -> Tensor:
        """Return the mean of the observation, `[B, ...]`."""
        return _wide(main_output(output))


def _like(target: Tensor, output: Tensor) -> Tensor:
    if target.shape != output.shape:
        # [B] against [B, 1] would broadcast to [B, B] and learn nonsense silently
        if target.numel() != output.numel():
            raise UserError(f"target has shape {tuple(target.shape)}, the model's output {tuple(output.shape)}")
        target = target.reshape(output.shape)
    return target.to(output.dtype)


def _classes(target: Tensor) -> Tensor:
    if target.is_floating_point():
        raise UserError(
            f"targets are {str(target.dtype).removeprefix('torch.')} of shape {tuple(target.shape)}; classes are whole "
            "numbers: take argmax(1) of one-hot rows, and for numbers instead of classes use loss='regression'"
        )
    return target.long()


def _wide(output: Tensor) -> Tensor:
    # half precision would round the likelihoods that rho learns from and that calibration measures
    return output.float() if output.dtype in (torch.float16, torch.bfloat16) else output


def as_loss(loss: Loss | nn.Module | Callable[..., Tensor] | str) -> Loss:
    """Return a `Loss` for what people have one in.

    Args:
        loss: a `Loss`; "classification", "regression" or "multi-label"; `nn.CrossEntropyLoss`, `nn.NLLLoss`,
            `nn.BCEWithLogitsLoss` or `nn.MSELoss`, with their settings; or their functions, `F.cross_entropy` and so
            on, also in a `functools.partial` that says settings by name.

    Raises:
        UserError: anything else, with the contract in the message.
    """
    if isinstance(loss, Loss):
        return loss
    if isinstance(loss, str) and loss in _NAMES:
        return _NAMES[loss]()
    function, settings = loss, {}
    if isinstance(loss, nn.Module):
        function = _FUNCTIONS_OF.get(type(loss), loss)
        settings = {name: getattr(loss, name) for name in _SETTINGS if hasattr(loss, name)}
    elif isinstance(loss, functools.partial) and not loss.args:
        function, settings = loss.func, dict(loss.keywords)
    kind = next((kind for known, kind in _KINDS.items() if known is function), None)
    reduction = settings.pop("reduction", "mean")
    if kind is None or reduction != "mean" or settings.keys() - inspect.signature(kind).parameters.keys():
        raise UserError(
            f"loss is {loss!r}; allowed are {', '.join(map(repr, _NAMES))}, "
            f"{', '.join(f'nn.{one.__name__}' for one in _FUNCTIONS_OF)} with reduction 'mean' or their functions "
            "(F.cross_entropy), or a subclass of crossreg.Loss, which says how predictions of several noise draws are "
            "averaged"
        )
    return kind(**settings)


_NAMES: dict[str, type[Loss]] = {
    "classification": Classification,
    "regression": GaussianRegression,
    "multi-label": MultiLabel,
}
_KINDS: dict[Callable[..., Tensor], type[Loss]] = {
    F.cross_entropy: Classification,
    F.nll_loss: Classification,  # log-probabilities are logits
    F.mse_loss: GaussianRegression,
    F.binary_cross_entropy_with_logits: MultiLabel,
}
_FUNCTIONS_OF: dict[type[nn.Module], Callable[..., Tensor]] = {
    nn.CrossEntropyLoss: F.cross_entropy,
    nn.NLLLoss: F.nll_loss,
    nn.MSELoss: F.mse_loss,
    nn.BCEWithLogitsLoss: F.binary_cross_entropy_with_logits,
}
_SETTINGS = ("weight", "ignore_index", "label_smoothing", "pos_weight", "reduction")
