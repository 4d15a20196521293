"""Any measure of the weights as regularization: its level is learned on held-out data, all else on training data.

    n = grad R(w) / ||grad R(w)||
    theta step:  w <- w - eta (g - (g . n) n),    g = d L_train / d w        across grad R: R stays, to first order
    rho step:    w <- w - alpha ||w|| n,          alpha from  (d L_reg / d w) . n      along grad R: R changes

So each of the two losses moves the weights where the other does not. For R = L2 that is norm and direction
(`crossreg.norms` keeps the norm exactly); for L1 it is the shrinking of all weights by one amount, which stops at 0.
Source: the gradient decomposition of cross-regularization (arXiv 2506.19755).

A step of the theta optimizer keeps R to first order in its size, and only as far as it is a step along the gradient it
is given: SGD without momentum does that, momentum nearly, and Adam, which rescales every weight's gradient, does not.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crossreg.errors import UserError
from crossreg.noise import Where
from crossreg.norms import Granularity, chosen_weights
from crossreg.penalties import Penalty
from crossreg.rho import RhoModule, unwrap

__all__ = ["Level", "fold_levels", "learn_levels", "levels"]


class Level(RhoModule):
    """The level of a measure of one weight tensor, or of each of its rows.

    Its rho is the change that the next rho step makes, relative to the size of the weights; after the step it is taken
    into the weights and is 0 again.

    Args:
        weight: the tensor.
        measure: whose level is learned; its strength plays no part.
        granularity: "tensor", or "unit" for one level a row.
    """

    def __init__(self, weight: Tensor, measure: Penalty, granularity: Granularity) -> None:
        super().__init__()
        self._measure = [measure]  # in a list, so that it is no submodule: its strength is not learned
        self.dims = tuple(range(granularity == "unit", weight.ndim))
        shape = weight.shape[:1] if granularity == "unit" else ()
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        self.rho = nn.Parameter(torch.zeros(shape, dtype=weight.dtype, device=weight.device), requires_grad=False)

    @property
    def measure(self) -> Penalty:
        """The measure."""
        return self._measure[0]

    def learned(self) -> dict[str, Tensor]:
        """Return nothing: the level is in the weights; see `levels`."""
        return {}

    def forward(self, v: Tensor) -> Tensor:
        """Return the weight, whose gradients go to v across grad R, and to rho along it."""
        if not torch.is_grad_enabled():
            return v
        normal = self.normal(v)
        across: Tensor = _Across.apply(v, normal, self.dims)
        return across + self._spread(self.rho) * self._size(v) * normal

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return v for a weight that is assigned."""
        return weight

    def normal(self, v: Tensor) -> Tensor:
        """Return grad R at v with norm 1, or 0 where it vanishes; a constant, shaped like v."""
        with torch.enable_grad():
            at = v.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.measure.measure([at])[0], at)
        length = torch.linalg.vector_norm(gradient, dim=self.dims, keepdim=True)
        return gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny)

    @torch.no_grad()
    def fold(self, v: Tensor) -> None:
        """Take rho's change into v, in place."""
        v.copy_(self.measure.moved(v, self._spread(self.rho) * self._size(v) * self.normal(v)))
        self.rho.zero_()

    def _size(self, v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v.detach(), dim=self.dims, keepdim=True)

    def _spread(self, rho: Tensor) -> Tensor:
        return rho.reshape(-1, *[1] * len(self.dims)) if rho.ndim else rho


class _Across(torch.autograd.Function):
    """Passes a weight through; its gradient loses the part along the normal."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, normal: Tensor, dims: tuple[int, ...]) -> Tensor:
        ctx.save_for_backward(normal)
        ctx.dims = dims
        return v.view_as(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (normal,) = gradients, ctx.saved_tensors
        return gradient - (gradient * normal).sum(ctx.dims, keepdim=True) * normal, None, None


def learn_levels(
    model: nn.Module, measure: Penalty, where: Where | None = None, granularity: Granularity = "tensor"
) -> nn.Module:
    """Learn the level of a measure of the weights by its direct gradient, in place; the weights keep their values.

    State-dict keys change as those of `learn_norms` do.

    Args:
        model: any module, not wrapped yet.
        measure: of the weights, e.g. `L1()` or a `Penalty` of your own with a (sub)gradient; its strength plays no
            part.
        where: which weights, as in `learn_norms`.
        granularity: "tensor" learns one level a tensor; "unit" one for each row (output unit), of a measure that is a
            sum over rows.

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, nothing chosen, or a measure that is a model's penalty already.
    """
    if measure.taken:
        raise UserError("this measure is a model's penalty already; make another")
    for module, name in chosen_weights(model, where, granularity, "learn_levels"):
        parametrize.register_parametrization(module, name, Level(getattr(module, name), measure, granularity))
    return model


def fold_levels(model: nn.Module) -> None:
    """Take the changes of an update into the weights; `CrossRegularizer` does this after each."""
    for _, level, weight in _all(model):
        level.fold(weight)


@torch.no_grad()
def levels(model: nn.Module) -> dict[str, Tensor]:
    """Return R of every weight whose level is learned, by the weight's name."""
    return {name: level.measure.measure([weight])[0].detach().clone() for name, level, weight in _all(model)}


def _all(model: nn.Module) -> Iterator[tuple[str, Level, nn.Parameter]]:
    for name, module in unwrap(model).named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            for part in module:
                if isinstance(part, Level):
                    layer, _, weight = name.rpartition("parametrizations.")
                    yield layer + weight, part, module.original  # type: ignore[misc]
