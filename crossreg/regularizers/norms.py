"""Weight norms as regularization: a weight is its norm, which is rho, times its direction, which is theta.

    w = exp(rho) v / ||v||

The held-out loss depends on rho with v fixed, so the direct gradient can learn it. Source: arXiv 2506.19755; the
parametrization is weight normalization (Salimans and Kingma 2016, arXiv:1602.07868), with one norm a tensor or a row.
"""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crossreg.core.errors import UserError
from crossreg.regularizers.noise import Where, selects
from crossreg.core.rho import RhoModule, rho_from_sigma, sigma_from_rho, unwrap

__all__ = ["Granularity", "Norm", "chosen_weights", "learn_norms", "norms", "over_rows"]

Granularity = Literal["tensor", "unit"]


class Norm(RhoModule):
    """The norm of one weight tensor, or of each of its rows.

    Args:
        weight: whose norm rho starts at; it must not be zero.
        granularity: "tensor", or "unit" for one norm a row.
    """

    def __init__(self, weight: Tensor, granularity: Granularity = "tensor") -> None:
        super().__init__()
        self.dims = tuple(range(granularity == "unit", weight.ndim))
        norm = torch.linalg.vector_norm(weight.detach(), dim=self.dims)
        if not bool((norm > 0).all()):
            raise UserError("a weight that is zero has no direction; initialize it first")
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        self.rho = nn.Parameter(rho_from_sigma(norm).to(norm), requires_grad=False)

    @property
    def norm(self) -> Tensor:
        """The norm in use, positive: a scalar, or one value a row."""
        return sigma_from_rho(self.rho)

    def learned(self) -> dict[str, Tensor]:
        """Return the norm."""
        return {"norm": self.norm}

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
    for module, name in chosen_weights(model, where, granularity, "learn_norms"):
        parametrize.register_parametrization(module, name, Norm(getattr(module, name), granularity))
    return model


def chosen_weights(
    model: nn.Module, where: Where | None, granularity: Granularity, caller: str
) -> list[tuple[nn.Module, str]]:
    """Return the modules and names of the weights to parametrize; see `learn_norms`."""
    if granularity not in ("tensor", "unit"):
        raise UserError(f"granularity is {granularity!r}; allowed are 'tensor' and 'unit'")
    if model is not unwrap(model):
        raise UserError(f"{caller} was given a wrapped model; call it first, then wrap with DDP or torch.compile")
    found: list[tuple[nn.Module, str]] = []
    names = []
    for prefix, module in model.named_modules():
        if isinstance(module, RhoModule | parametrize.ParametrizationList) or parametrize.is_parametrized(module):
            continue  # a weight that is computed already
        for name, parameter in module.named_parameters(recurse=False):
            full = f"{prefix}.{name}" if prefix else name
            names.append(full)
            taken = parameter.ndim >= 2 if where is None else selects(where, full, parameter)
            if taken and parameter.requires_grad:
                found.append((module, name))
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
