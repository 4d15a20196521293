"""Terms of the training objective whose strength is rho: weight decay, L1, smoothness, or one of your own.

    C1(theta, rho) = loss(model(x), y) + sum_i exp(rho_i) R_i(theta)

The held-out loss has no such term, so with theta fixed it does not depend on these rho: only an estimator that follows
theta's response (`Unrolled`, `Implicit`, `T1T2`) can learn them. One of your own is a few lines:

    class Smoothness(Penalty):
        def measure(self, weights):
            return [w.diff(dim=-1).square().sum() for w in weights]
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, nn

from crossreg.errors import UserError
from crossreg.noise import Where, selects
from crossreg.rho import RhoModule, rho_from_sigma, rho_parameters, sigma_from_rho, unwrap

__all__ = ["L1", "L2", "Objective", "Penalty", "penalize", "penalty", "strengths"]

_ATTRIBUTE = "rho_penalties"


class Penalty(RhoModule):
    """A measure of the weights, times a learned strength: one for all of them, or one a tensor.

    Args:
        strength: positive start value.
        each: learn one strength a weight tensor.
    """

    direct = False

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
        return sigma_from_rho(self.rho)

    def forward(self, model: nn.Module) -> Tensor:
        """Return the penalty of the model's present weights, a scalar."""
        weights = dict(model.named_parameters())
        values = torch.stack(self.measure([weights[name] for name in self.names]))
        return (self.strength * values).sum()


class L2(Penalty):
    """Half the squared norm: weight decay, as a term of the objective."""

    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return half the squared norm of every tensor."""
        return [0.5 * weight.square().sum() for weight in weights]


class L1(Penalty):
    """The sum of absolute values; its subgradient at 0 is 0."""

    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        """Return the sum of absolute values of every tensor."""
        return [weight.abs().sum() for weight in weights]


class _Penalties(nn.ModuleList):
    def forward(self, x: Any) -> Any:
        """Return what comes: the last module of an `nn.Sequential` is called like the others."""
        return x


def penalize(model: nn.Module, term: Penalty, where: Where | None = None) -> nn.Module:
    """Give a model a penalty to be trained with, in place; call it again for another.

    Args:
        model: any module, not wrapped yet.
        term: e.g. `L2(strength=1e-3)`.
        where: which weights: a shell-style pattern of parameter names ("*.weight"), several, or a predicate
            `(name, parameter) -> bool`. None takes all that require gradients and have at least two dimensions, as
            weight decay usually leaves out biases and normalization.

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, a term that another model has, or nothing chosen.
    """
    if model is not unwrap(model):
        raise UserError("penalize was given a wrapped model; penalize first, then wrap with DDP or torch.compile")
    if term.names:
        raise UserError("this term is a model's already; make another")
    rho = rho_parameters(model)
    theta = {name: p for name, p in model.named_parameters() if p.requires_grad and name not in rho}
    chosen = {n: p for n, p in theta.items() if (p.ndim >= 2 if where is None else selects(where, n, p))}
    if not chosen:
        raise UserError(f"where={where!r} selects none of the weights: {', '.join(theta) or 'none require gradients'}")
    first = next(iter(chosen.values()))
    term.names = list(chosen)
    shape = (len(chosen),) if term.each else ()
    wide = torch.float64 if first.dtype == torch.float64 else torch.float32
    term.rho.data = rho_from_sigma(term.start).expand(shape).clone().to(first.device, wide)
    if not hasattr(model, _ATTRIBUTE):
        model.add_module(_ATTRIBUTE, _Penalties())
    getattr(model, _ATTRIBUTE).append(term)
    return model


def penalty(model: nn.Module) -> Tensor:
    """Return the sum of a model's penalties, a scalar to add to the training loss; 0 where it has none.

    Its strengths are constants here, as the noise scales are in the theta step, except in a rho step.
    """
    model = unwrap(model)
    terms: Iterable[nn.Module] = getattr(model, _ATTRIBUTE, ())
    return torch.stack(values).sum() if (values := [term(model) for term in terms]) else torch.zeros(())


def strengths(model: nn.Module) -> list[Tensor]:
    """Return a detached copy of every penalty's strength, in the order they were given."""
    return [term.strength.detach().clone() for term in getattr(unwrap(model), _ATTRIBUTE, ())]


class Objective(nn.Module):
    """The training objective as a module `(x, y) -> scalar`, so that `torch.func` can swap the model's weights.

    Args:
        model: the unwrapped model, a submodule under the name `model`.
        loss: see `crossreg.losses`.
    """

    def __init__(self, model: nn.Module, loss: object) -> None:
        super().__init__()
        self.model, self.loss = model, loss

    def forward(self, x: object, y: Tensor) -> Tensor:
        """Return loss and penalties."""
        value: Tensor = self.loss(self.model(x), y)  # type: ignore[operator]
        return value + penalty(self.model).to(value)
