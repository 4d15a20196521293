"""Any measure of the weights as regularization: its level is learned on held-out data, all else on training data.

    n = grad R(w) / ||grad R(w)||
    theta step:  w <- w - eta (g - (g . n) n),    g = d L_train / d w        across grad R: R stays
    rho step:    w <- w - alpha ||w|| n,          alpha from  (d L_reg / d w) . n      along grad R: R changes

So each of the two losses moves the weights where the other does not. For R = L2 that is norm and direction
(`crossreg.regularizers.norms` keeps the norm exactly); for L1 it is the shrinking of all weights by one amount, which
stops at 0.
Source: the gradient decomposition of cross-regularization (arXiv 2506.19755).

A step of theta leaves R as it is to first order in its size, and less than that where the optimizer rescales gradients
or a weight meets a kink; what remains is taken back, along grad R, after each.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crossreg.core.errors import UserError
from crossreg.core.modules import Where, unwrap
from crossreg.regularizers.base import Hyperparameter, Regularizer, RhoModule
from crossreg.regularizers.norms import Granularity, chosen_weights, over_rows, remove_parametrization
from crossreg.regularizers.penalties import L1, Penalty

__all__ = ["L1_LEVEL", "Level", "learn_levels", "levelled_weights", "levels", "remove_levels"]

_NEWTON_STEPS = 10
_MOST_NEWTON_STEPS = 200

_LEVEL = Hyperparameter(
    "l1_level",
    help="level of the L1 norm of every weight tensor; all else about the weights stays with them",
    unit="mean absolute value of the tensor's values",
    default=None,
    range=(1e-3, 1.0),
    direct=True,
)


class Level(RhoModule):
    """The level of a measure of one weight tensor, or of each of its rows.

    Its rho is the change that the next rho step makes, relative to the size of the weights; after the step it is taken
    into the weights and is 0 again.

    Args:
        weight: the tensor.
        measure: whose level is learned; its strength plays no part.
        granularity: "tensor", or "unit" for one level a row.
        part: of the hyperparameter's name: number and name of the weight.
    """

    def __init__(self, weight: Tensor, measure: Penalty, granularity: Granularity, part: str = "") -> None:
        super().__init__()
        self.part = part
        self._weight: list[nn.Parameter] = []  # what the weight is made of, once the level is registered
        self._measure = [measure]  # in a list, so that it is no submodule: its strength is not learned
        self._before: Tensor | None = None  # the weight that a theta step starts from
        self.dims = tuple(range(granularity == "unit", weight.ndim))
        shape = weight.shape[:1] if granularity == "unit" else ()
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        self.rho = nn.Parameter(torch.zeros(shape, dtype=weight.dtype, device=weight.device), requires_grad=False)

    @property
    def measure(self) -> Penalty:
        """The measure."""
        return self._measure[0]

    def forward(self, v: Tensor) -> Tensor:
        """Return the weight, whose gradients go to v across grad R, and to rho along it."""
        if not torch.is_grad_enabled():
            return v
        normal = self.normal(v)
        if self.training and self._before is None:  # SAM's second pass is at other weights
            self._before = v.detach().clone()
        across: Tensor = _Across.apply(v, normal, self)
        return across + over_rows(self.rho, self.dims) * self._size(v) * normal

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return v for a weight that is assigned."""
        return weight

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the level, as the mean over the values that it measures."""
        name = f"{type(self.measure).__name__.lower()}_level"
        kind = _LEVEL if name == _LEVEL.name else replace(_LEVEL, name=name, help=f"level of {name.upper()}")
        (v,) = self._weight
        count = v.numel() / self.rho.numel()

        def read() -> Tensor:
            return self.values(v.detach()).mean() / count

        def write(value: float) -> None:
            self.move_to(v, torch.full_like(self.rho, value * count))

        return [kind.live(read, write, self.part, self.rho)]

    def values(self, v: Tensor) -> Tensor:
        """Return the measure of v: a scalar, or one value a row."""
        parts = [v] if len(self.dims) == v.ndim else list(v)
        return torch.stack(self.measure.measure(parts)).reshape(self.rho.shape)

    def gradient(self, v: Tensor) -> Tensor:
        """Return grad R at v, a constant, shaped like v."""
        with torch.enable_grad():
            at = v.detach().requires_grad_()
            (gradient,) = torch.autograd.grad(self.values(at).sum(), at)
        return gradient

    def normal(self, v: Tensor) -> Tensor:
        """Return grad R at v with norm 1, or 0 where it vanishes."""
        gradient = self.gradient(v)
        length = torch.linalg.vector_norm(gradient, dim=self.dims, keepdim=True)
        return gradient / length.clamp_min(torch.finfo(gradient.dtype).tiny)

    @torch.no_grad()
    def restore(self, v: Tensor) -> None:
        """Give v, in place, the level back that it had before a step of theta."""
        if self._before is None:
            return
        v.copy_(self.measure.moved(self._before, v - self._before))
        before, self._before = self.values(self._before), None
        self._newton(v, before, _NEWTON_STEPS)

    @torch.no_grad()
    def move_to(self, v: Tensor, level: Tensor) -> None:
        """Give v, in place, a level of the shape of rho, along the gradient of the measure."""
        self._newton(v, level, _MOST_NEWTON_STEPS)
        self.forget()

    def _newton(self, v: Tensor, level: Tensor, steps: int) -> None:
        for _ in range(steps):
            excess = self.values(v) - level
            if not bool((excess.abs() > 1e-12 * level.abs()).any()):
                break
            gradient = self.gradient(v)
            size = gradient.square().sum(self.dims, keepdim=True).clamp_min(torch.finfo(v.dtype).tiny)
            v.copy_(self.measure.moved(v, -over_rows(excess, self.dims) / size * gradient))

    @torch.no_grad()
    def fold(self, v: Tensor) -> None:
        """Take rho's change into v, in place."""
        v.copy_(self.measure.moved(v, over_rows(self.rho, self.dims) * self._size(v) * self.normal(v)))
        self.rho.zero_()
        self.forget()  # an estimator may have passed through it

    def forget(self) -> None:
        """Let the next pass in training mode be where a step of theta starts from."""
        self._before = None

    def _load_from_state_dict(self, *args: Any) -> None:
        super()._load_from_state_dict(*args)
        self.forget()

    def _size(self, v: Tensor) -> Tensor:
        return torch.linalg.vector_norm(v.detach(), dim=self.dims, keepdim=True)


class _Across(torch.autograd.Function):
    """Passes a weight through; its gradient loses the part along the normal."""

    @staticmethod
    def forward(ctx: Any, v: Tensor, normal: Tensor, level: Level) -> Tensor:
        ctx.save_for_backward(v, normal)
        ctx.level = level
        return v.view_as(v)

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None, None]:
        (gradient,), (v, normal) = gradients, ctx.saved_tensors
        return ctx.level.measure.across(gradient, v.detach(), normal, ctx.level.dims), None, None


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
        granularity: "tensor" learns one level a tensor; "unit" one for each row (output unit).

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, nothing chosen, or a measure that is a model's penalty already.
    """
    if measure.taken:
        raise UserError("this measure is a model's penalty already; make another")
    for module, name, part in chosen_weights(model, where, granularity, "learn_levels"):
        level = Level(getattr(module, name), measure, granularity, part)
        parametrize.register_parametrization(module, name, level)
        level._weight = [module.parametrizations[name].original]  # type: ignore[index, union-attr]
        level.forget()  # registering passes through it, and the weights may be set before the first step
    return model


@torch.no_grad()
def levels(model: nn.Module) -> dict[str, Tensor]:
    """Return R of every weight whose level is learned, by the weight's name."""
    return {
        name: level.measure.measure([weight])[0].detach().clone()
        for name, (level, weight) in levelled_weights(model).items()
    }


def levelled_weights(model: nn.Module) -> dict[str, tuple[Level, nn.Parameter]]:
    """Return every level and the parameter that its weight is made of, by the weight's name."""
    found = {}
    for name, module in unwrap(model).named_modules():
        if isinstance(module, parametrize.ParametrizationList):
            for part in module:
                if isinstance(part, Level):
                    layer, _, weight = name.rpartition("parametrizations.")
                    found[layer + weight] = part, module.original
    return found  # type: ignore[return-value]


def remove_levels(model: nn.Module) -> None:
    """Make weights whose level is learned plain parameters again, of the same values."""
    remove_parametrization(model, Level)


def _attach(model: nn.Module, value: float | None, **options: Any) -> None:
    learn_levels(model, L1(), **options)
    for level, _ in levelled_weights(model).values():
        if value is not None:
            level.hyperparameters()[0].set(value)


L1_LEVEL = Regularizer(_LEVEL, _attach, remove_levels, options={"where": Where, "granularity": Granularity})
