"""Terms of the training objective with rho in them: weight decay, L1, smoothness, or one of your own.

    C1(theta, rho) = loss(model(x), y) + sum_i term_i(theta, rho),        of a penalty: exp(rho_i) R_i(theta)

The held-out loss has no such term, so with theta fixed it does not depend on these rho: only an estimator that follows
theta's response (`Unrolled`, `Implicit`, `T1T2`) can learn them. One of your own is a few lines:

    class Roughness(Penalty):
        def measure(self, weights):
            return [w.diff(dim=-1).square().sum() for w in weights]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, cast

import torch
from torch import Tensor, nn

from crossreg.core.calling import call
from crossreg.core.errors import UserError
from crossreg.core.modules import AttachedModules, Where, rho_device_and_dtype, selects, unwrap
from crossreg.models.ensemble import of_members
from crossreg.regularizers.base import Hyperparameter, Regularizer, RhoModule, part_name, rho_parameters

__all__ = [
    "L1",
    "L1_PENALTY",
    "L2",
    "L2_PENALTY",
    "Objective",
    "Penalty",
    "Smoothness",
    "Term",
    "penalize",
    "remove_terms",
    "strengths",
    "term_regularizer",
    "terms",
    "training_loss",
    "without_terms",
]

_ATTRIBUTE = "rho_terms"

_STRENGTH = Hyperparameter(
    "penalty",
    help="strength of a penalty on the weights, in the training loss",
    unit="loss a unit of the measure",
    default=1e-3,
    range=(1e-8, 1.0),
)


class Term(RhoModule):
    """Something added to the training loss that depends on rho, and that the held-out loss does not have."""

    direct = False
    taken = False  # by a model
    between = False  # it compares the members of an ensemble

    @abstractmethod
    def added(self, model: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Return what is added to the training loss of one batch, a scalar.

        Args:
            model: whose weights they are.
            output: of the model, `[B, ...]`.
            target: `[B, ...]`.
        """


class Penalty(Term):
    """A measure of the weights, times a learned strength: one for all of them, or one a tensor.

    Args:
        strength: positive start value.
        each: learn one strength a weight tensor.

    Attributes:
        hyperparameter: describes the strength; that of a class of your own has its name.
    """

    hyperparameter = _STRENGTH

    def __init_subclass__(cls, **options: Any) -> None:
        super().__init_subclass__(**options)
        if "hyperparameter" not in vars(cls):
            cls.hyperparameter = replace(cls.hyperparameter, name=cls.__name__.lower())

    def __init__(self, strength: float = 1e-3, each: bool = False) -> None:
        super().__init__()
        if not 0 < strength < float("inf"):
            raise UserError(f"strength is {strength!r}; it must be a positive finite number")
        self.start, self.each = strength, each
        self.names: list[str] = []
        self.rho = nn.Parameter(torch.empty(0), requires_grad=False)

    @abstractmethod
    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return one scalar a weight tensor, of which the strength is a factor."""

    @property
    def strength(self) -> Tensor:
        """What the measure is multiplied by, positive: a scalar, or one value a tensor."""
        return self.hyperparameter.natural(self.rho)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the strength, or the strength of every weight tensor."""
        if not self.each:
            return [self.hyperparameter.of_rho(self.rho)]
        return [
            self.hyperparameter.of_rho(self.rho, part_name(index, name), index) for index, name in enumerate(self.names)
        ]

    def kinks(self, weights: list[Tensor]) -> list[Tensor] | None:
        """Return where the measure has a kink that holds its weights: booleans like the weights, or None for nowhere.

        An estimator takes such weights as constant; see `L1`.
        """
        return None

    def across(self, gradient: Tensor, weight: Tensor, normal: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Return the part of a weight's gradient that leaves the measure as it is; see `crossreg.regularizers.levels`.

        Args:
            gradient: shaped like the weight.
            weight: where it was taken.
            normal: the measure's own gradient there, of norm 1.
            dims: that the sums run over: all, or all but the rows.
        """
        return gradient - (gradient * normal).sum(dims, keepdim=True) * normal

    def moved(self, weight: Tensor, change: Tensor) -> Tensor:
        """Return a weight after a change of it; see `crossreg.regularizers.levels`."""
        return weight + change

    def added(self, model: nn.Module, output: Tensor, target: Tensor) -> Tensor:
        """Return the penalty of the model's present weights, a scalar."""
        weights = dict(model.named_parameters())
        values = torch.stack(self.measure([weights[name] for name in self.names]))
        return (self.strength * values).sum()


class L2(Penalty):
    """Half the squared norm: weight decay, as a term of the objective."""

    hyperparameter = replace(
        _STRENGTH,
        name="l2",
        help="strength of half the squared norm of the weights in the training loss",
        default=1e-4,
        range=(1e-6, 1e-1),
    )

    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return half the squared norm of every tensor."""
        return [0.5 * weight.square().sum() for weight in weights]


class Smoothness(Penalty):
    """Half the sum of squared differences of neighbours along the last dimension, as of a spline's coefficients.

    Args:
        strength: positive start value.
        each: learn one strength a weight tensor.
        order: of the differences; 2 leaves straight lines alone.

    Source: P-splines, Eilers and Marx 1996.
    """

    def __init__(self, strength: float = 1e-3, each: bool = False, order: int = 2) -> None:
        super().__init__(strength, each)
        if order < 1:
            raise UserError(f"order is {order!r}; it must be at least 1")
        self.order = order

    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return it of every tensor."""
        return [0.5 * weight.diff(n=self.order, dim=-1).square().sum() for weight in weights]


class L1(Penalty):
    """The sum of absolute values; its subgradient at 0 is 0.

    A weight that is exactly 0, as solvers with a proximal step leave it, stays there when rho changes a little, so it
    has no part in theta's response (Bertrand et al. 2020, arXiv:2002.08943).
    """

    hyperparameter = replace(
        _STRENGTH,
        name="l1",
        help="strength of the sum of absolute weights in the training loss",
        default=1e-5,
        range=(1e-7, 1e-2),
    )

    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return the sum of absolute values of every tensor."""
        return [weight.abs().sum() for weight in weights]

    def kinks(self, weights: list[Tensor]) -> list[Tensor]:
        """Return where weights are exactly 0."""
        return [weight == 0 for weight in weights]

    def across(self, gradient: Tensor, weight: Tensor, normal: Tensor, dims: tuple[int, ...]) -> Tensor:
        """Return the part of the gradient that leaves the norm as it is.

        The norm has many subgradients where weights are 0. Taken is the one by which a weight leaves 0 only if the loss
        falls faster that way than it does, on average, by growing the others: the optimality condition of the LASSO.
        """
        zero, sign = weight == 0, weight.sign()

        def multiplier() -> Tensor:
            return -(gradient * sign).sum(dims, keepdim=True) / sign.abs().sum(dims, keepdim=True).clamp_min(1)

        leaves = zero & (gradient.abs() > multiplier().clamp_min(0))
        sign = torch.where(leaves, -gradient.sign(), sign)  # those that leave take their share of the norm
        rest = gradient + multiplier() * sign
        return torch.where(zero & (~leaves | (rest * gradient <= 0)), torch.zeros_like(rest), rest)

    def moved(self, weight: Tensor, change: Tensor) -> Tensor:
        """Return a weight after a change; one that would cross 0 stops there."""
        after = weight + change
        return torch.where(weight * after < 0, torch.zeros_like(after), after)


def penalize(model: nn.Module, term: Term, where: Where | None = None) -> nn.Module:
    """Give a model a term to be trained with, in place; call it again for another.

    Args:
        model: any module, not wrapped yet.
        term: e.g. `L2(strength=1e-3)` or `LabelSmoothing(0.1)`.
        where: which weights a penalty measures: a shell-style pattern of parameter names ("*.weight"), several, or a
            predicate `(name, parameter) -> bool`. None takes all that require gradients and have at least two
            dimensions, as weight decay usually leaves out biases and normalization.

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, a term that another model has, or nothing chosen.
    """
    if model is not unwrap(model):
        raise UserError("penalize was given a wrapped model; penalize first, then wrap with DDP or torch.compile")
    if term.taken:
        raise UserError("this term is a model's already; make another")
    if isinstance(term, Penalty):
        _bind(model, term, where)
    elif where is not None:
        raise UserError(f"{type(term).__name__} measures no weights, so `where` chooses nothing; leave it out")
    else:
        term.to(*rho_device_and_dtype(model, model))
    term.taken = True
    if not hasattr(model, _ATTRIBUTE):
        model.add_module(_ATTRIBUTE, AttachedModules())
    getattr(model, _ATTRIBUTE).append(term)
    return model


def _bind(model: nn.Module, term: Penalty, where: Where | None) -> None:
    """Tell a penalty its weights."""
    rho = rho_parameters(model)
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in rho}
    chosen = {n: p for n, p in theta.items() if (p.ndim >= 2 if where is None else selects(where, n, p))}
    if not chosen:
        raise UserError(f"where={where!r} selects none of the weights: {', '.join(theta) or 'none require gradients'}")
    term.names = list(chosen)
    shape = (len(chosen),) if term.each else ()
    device, dtype = rho_device_and_dtype(model, model)
    start = term.hyperparameter.unconstrained(term.start).expand(shape).clone()
    term.rho = nn.Parameter(start.to(device, dtype), requires_grad=False)


def training_loss(model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], output: Tensor, target: Tensor) -> Tensor:
    """Return the training objective of one batch: the loss, and the model's terms.

    What rho holds is constant here, as the noise scales are in the theta step, except in a rho step.

    Args:
        model: wrapped or not.
        loss: `(output, target) -> scalar`, e.g. `F.cross_entropy`.
        output: of the model, `[B, ...]`; where members of an ensemble are compared, of each, whose losses are averaged.
        target: `[B, ...]`.
    """
    inner = unwrap(model)
    apart = of_members(inner, output)
    if apart is None:
        return _objective(inner, loss, output, target, terms(inner))
    own = [term for term in terms(inner) if not term.between]
    value = torch.stack([_objective(inner, loss, one, target, own) for one in apart]).mean()
    for term in terms(inner):
        if term.between:
            value = value + term.added(inner, apart, target).to(value)
    return value


def _objective(
    model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor], output: Tensor, target: Tensor, own: list[Term]
) -> Tensor:
    value = loss(output, target)
    for term in own:
        value = value + term.added(model, output, target).to(value)
    return value


def terms(model: nn.Module) -> list[Term]:
    """Return the terms that a model was given, in order."""
    return list(getattr(unwrap(model), _ATTRIBUTE, ()))


def remove_terms(model: nn.Module) -> None:
    """Take the terms out of a model, if it has any."""
    if hasattr(model, _ATTRIBUTE):
        delattr(model, _ATTRIBUTE)


def without_terms(model: nn.Module, kind: type[Term]) -> None:
    """Take the terms of a class out of a model."""
    kept = [term for term in terms(model) if not isinstance(term, kind)]
    remove_terms(unwrap(model))
    if kept:
        unwrap(model).add_module(_ATTRIBUTE, AttachedModules(kept))


def strengths(model: nn.Module) -> list[Tensor]:
    """Return a detached copy of every penalty's strength, in the order they were given."""
    return [term.strength.detach().clone() for term in terms(model) if isinstance(term, Penalty)]


class Objective(nn.Module):
    """The training objective as a module `(x, y) -> scalar`, so that `torch.func` can swap the model's weights.

    Args:
        model: the unwrapped model, a submodule under the name `model`.
        loss: see `crossreg.losses`.
    """

    def __init__(self, model: nn.Module, loss: Callable[[Tensor, Tensor], Tensor]) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x: object, y: Tensor) -> Tensor:
        """Return loss and terms."""
        return training_loss(self.model, self.loss, call(self.model, x), y)


def term_regularizer(
    kind: Callable[[float], Term], hyperparameter: Hyperparameter, options: Mapping[str, Any] | None = None
) -> Regularizer:
    """Return the `Regularizer` that is a term.

    Args:
        kind: the term's class; its instances are made of a start value.
        hyperparameter: its description.
        options: `{"where": Where}`, for a measure of chosen weights.
    """

    def attach(model: nn.Module, value: float | None, where: Where | None = None) -> None:
        start = hyperparameter.default if value is None else value
        assert start is not None
        penalize(model, kind(start), where)

    def remove(model: nn.Module) -> None:
        without_terms(model, cast(type[Term], kind))

    return Regularizer(hyperparameter, attach, remove, options or {})


L2_PENALTY = term_regularizer(L2, L2.hyperparameter, options={"where": Where})
L1_PENALTY = term_regularizer(L1, L1.hyperparameter, options={"where": Where})
