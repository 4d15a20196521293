"""Weight norms as regularization: a weight is its norm, which is rho, times its direction, which is theta.

    w = exp(rho) v / ||v||

The held-out loss depends on rho with v fixed, so the direct gradient can learn it. Source: arXiv 2506.19755; the
parametrization is weight normalization (Salimans and Kingma 2016, arXiv:1602.07868), with one norm a tensor or a row.
"""

from __future__ import annotations

import math
from typing import Any, Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crossreg.core.errors import UserError
from crossreg.core.modules import Where, selects, unwrap
from crossreg.regularizers.base import Hyperparameter, Regularizer, RhoModule, part_name, rho_from_sigma, sigma_from_rho

__all__ = [
    "NORM",
    "Granularity",
    "Norm",
    "chosen_weights",
    "learn_norms",
    "norms",
    "over_rows",
    "remove_norms",
    "remove_parametrization",
]

Granularity = Literal["tensor", "unit"]

_NORM = Hyperparameter(
    "norm",
    help="norm of every weight tensor, its direction staying with the weights",
    unit="root mean square of the tensor's values",
    default=None,
    range=(1e-3, 1.0),
    direct=True,
)


class Norm(RhoModule):
    """The norm of one weight tensor, or of each of its rows.

    Args:
        weight: whose norm rho starts at; it must not be zero.
        granularity: "tensor", or "unit" for one norm a row.
        part: of the hyperparameter's name: number and name of the weight.
    """

    def __init__(self, weight: Tensor, granularity: Granularity = "tensor", part: str = "") -> None:
        super().__init__()
        self.part = part
        self.dims = tuple(range(granularity == "unit", weight.ndim))
        norm = torch.linalg.vector_norm(weight.detach(), dim=self.dims)
        self.count = weight.numel() // norm.numel()
        if not bool((norm > 0).all()):
            raise UserError("a weight that is zero has no direction; initialize it first")
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        self.rho = nn.Parameter(rho_from_sigma(norm).to(norm), requires_grad=False)

    @property
    def norm(self) -> Tensor:
        """The norm in use, positive: a scalar, or one value a row."""
        return sigma_from_rho(self.rho)

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return the root mean square, which does not grow with the tensor as its norm does."""
        root = math.sqrt(self.count)

        def read() -> Tensor:
            return self.norm.detach().mean() / root

        def write(value: float) -> None:
            self.rho.data.fill_(float(rho_from_sigma(value * root)))

        return [_NORM.live(read, write, self.part, self.rho)]

    def forward(self, v: Tensor) -> Tensor:
        """Return the weight: the norm in v's direction."""
        norm = over_rows(self.norm, self.dims)
        return (norm / torch.linalg.vector_norm(v, dim=self.dims, keepdim=True)).to(v.dtype) * v

    def right_inverse(self, weight: Tensor) -> Tensor:
        """Return v for a weight that is assigned; the norm stays what it is."""
        return weight


def over_rows(values: Tensor, dims: tuple[int, ...]) -> Tensor:
    """Return a scalar as it is, and values a row so that they multiply the rows of a tensor."""
    return values.reshape(-1, *[1] * len(dims)) if values.ndim else values


def learn_norms(model: nn.Module, where: Where | None = None, granularity: Granularity = "tensor") -> nn.Module:
    """Make the norms of weights rho, in place; the weights keep their values.

    A state-dict key `<layer>.weight` becomes `<layer>.parametrizations.weight.original` (v), with
    `<layer>.parametrizations.weight.0.rho` beside it.

    Args:
        model: any module, not wrapped yet.
        where: which weights, by parameter name: a shell-style pattern, several, or a predicate `(name, parameter) ->
            bool`. None takes all that require gradients and have at least two dimensions.
        granularity: "tensor" learns one norm a tensor, "unit" one for each row (output unit).

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, nothing chosen, or a weight of zeros.
    """
    for module, name, part in chosen_weights(model, where, granularity, "learn_norms"):
        parametrize.register_parametrization(module, name, Norm(getattr(module, name), granularity, part))
    return model


def remove_norms(model: nn.Module) -> None:
    """Make weights whose norms are rho plain parameters again, of the same values."""
    remove_parametrization(model, Norm)


def remove_parametrization(model: nn.Module, kind: type[RhoModule]) -> None:
    """Make weights that modules of a kind compute plain parameters again, of the same values."""
    for module in list(unwrap(model).modules()):
        if parametrize.is_parametrized(module):
            computed = cast(nn.ModuleDict, module.parametrizations)
            for name in [n for n, parts in computed.items() if isinstance(cast(nn.ModuleList, parts)[0], kind)]:
                parametrize.remove_parametrizations(module, name)


def chosen_weights(
    model: nn.Module, where: Where | None, granularity: Granularity, caller: str
) -> list[tuple[nn.Module, str, str]]:
    """Return modules, names and parts (see `Norm`) of the weights to parametrize; see `learn_norms`."""
    if granularity not in ("tensor", "unit"):
        raise UserError(f"granularity is {granularity!r}; allowed are 'tensor' and 'unit'")
    if model is not unwrap(model):
        raise UserError(f"{caller} was given a wrapped model; call it first, then wrap with DDP or torch.compile")
    found: list[tuple[nn.Module, str, str]] = []
    names = []
    for prefix, module in model.named_modules():
        if isinstance(module, RhoModule | parametrize.ParametrizationList) or parametrize.is_parametrized(module):
            continue  # a weight that is computed already
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            names.append(full)
            taken = parameter.ndim >= 2 if where is None else selects(where, full, parameter)
            if taken and parameter.requires_grad:
                found.append((module, name, part_name(len(found), full)))
    if not found and where is None and any(parametrize.is_parametrized(module) for module in model.modules()):
        raise UserError(f"{caller}: no weight is left to take; a weight has one norm or one level")
    if not found:
        raise UserError(f"where={where!r} selects none of the weights: {', '.join(names) or 'there are none'}")
    return found


def norms(model: nn.Module) -> dict[str, Tensor]:
    """Return a detached copy of every learned norm by the name of its weight."""
    found = {}
    for name, module in unwrap(model).named_modules():
        if isinstance(module, Norm):
            layer, _, weight = name.rpartition(".")[0].rpartition("parametrizations.")
            found[layer + weight] = module.norm.detach().clone()
    return found


def _attach(model: nn.Module, value: float | None, **options: Any) -> None:
    learn_norms(model, **options)
    for module in model.modules():
        if isinstance(module, Norm) and value is not None:
            module.hyperparameters()[0].set(value)


NORM = Regularizer(_NORM, _attach, remove_norms, options={"where": Where, "granularity": Granularity})
