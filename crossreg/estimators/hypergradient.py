"""What estimators share that follow rho through theta, by derivatives of the training objective C1(theta, rho).

    d C2 / d rho  =  partial C2 / partial rho  +  (d theta / d rho)^T  partial C2 / partial theta

The first term is the direct gradient. For the second, no Jacobian is formed: products of a vector with the second
derivatives of C1 are one backward pass through the graph of its gradient g = partial C1 / partial theta.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn.attention import SDPBackend, sdpa_kernel

from crossreg.batches import Batches
from crossreg.core.errors import UserError
from crossreg.core.modules import train_mode
from crossreg.estimators.base import Estimator
from crossreg.losses import Loss
from crossreg.optimizers import LearnedOptimizer
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw, set_draw, stochastic
from crossreg.regularizers.penalties import Objective

__all__ = [
    "HypergradientEstimator",
    "step_sizes",
    "theta_of",
    "training_gradient",
    "training_mode_with_rho_grad",
    "twice_differentiable",
    "vector_jacobian_product",
]


class HypergradientEstimator(Estimator):
    """An estimator that differentiates the training objective too, and so takes batches of the training split.

    It runs in the weights' own dtype under autocast too, because half precision does not do for a second derivative.
    Between ranks the products of shards are averaged: the same in expectation as those of whole batches, with more
    variance.

    Args:
        train: batches of the training split, in an order of their own (another seed than theta's batches).
        optimizer: of theta, for an estimator that takes its step sizes; it may be set later, since it is made of
            `CrossRegularizer.theta`.
    """

    needs_training_data = True

    def __init__(self, train: Batches, optimizer: torch.optim.Optimizer | None = None) -> None:
        self.train, self.optimizer = train, optimizer
        self._update = 1
        self._counting = False

    def set_update(self, update: int) -> None:
        """Choose the training batch by the number of the update, from 1: a resumed run needs no state of this."""
        self._update = update

    def on(self, x: Tensor, y: Tensor) -> Self:
        """Return the same estimator with one given training batch and no optimizer, to count its operations."""
        twin = copy.copy(self)
        twin.train = Batches(x, y, len(y), shuffle=False, device=x.device)
        twin._counting = True
        return twin

    def step_sizes(self, theta: Sequence[Tensor], *, schedule: bool = True) -> list[Tensor]:
        """Return those of the optimizer, see `step_sizes`.

        Raises:
            UserError: there is no optimizer.
        """
        if self._counting:
            return [torch.zeros_like(parameter) for parameter in theta]
        if self.optimizer is None:
            raise UserError(
                f"{type(self).__name__} takes the step sizes of theta's optimizer; set `estimator.optimizer` to it"
            )
        return step_sizes(self.optimizer, theta, schedule=schedule)

    def batch(self, number: int) -> tuple[Any, Tensor]:
        """Return a training batch by its number, from 0, through all epochs."""
        epoch, index = divmod(number, len(self.train))
        self.train.set_epoch(epoch)
        return next(self.train.starting_at(index))


def theta_of(model: nn.Module) -> dict[str, nn.Parameter]:
    """Return what trains on training data, by name."""
    rho = {id(parameter) for parameter in rho_parameters(model).values()}
    return {name: p for name, p in model.named_parameters() if p.requires_grad and id(p) not in rho}


def training_gradient(
    model: nn.Module,
    loss: Loss,
    x: Any,
    y: Tensor,
    weights: Mapping[str, Tensor],
    draws: Sequence[Draw],
) -> tuple[Tensor | None, ...]:
    """Return the gradient of the training objective in weights, with its graph; within `training_mode_with_rho_grad`.

    Args:
        model: the unwrapped model.
        loss: see `crossreg.losses`.
        x: a training batch.
        y: its targets.
        weights: where the gradient is taken, by name; None for one that the objective does not depend on.
        draws: noise draws that the objective is averaged over.
    """
    objective = Objective(model, loss)
    values = []
    for draw in draws:
        set_draw(model, draw, y.device)
        # running statistics are updated on copies: the training batch must leave no trace
        buffers = {f"model.{name}": buffer.clone() for name, buffer in model.named_buffers()}
        swapped = {f"model.{name}": weight for name, weight in weights.items()}
        values.append(functional_call(objective, {**buffers, **swapped}, (x, y)))
    value = torch.stack(values).mean()
    return torch.autograd.grad(value, list(weights.values()), create_graph=True, allow_unused=True)


def vector_jacobian_product(
    values: Sequence[Tensor | None], slopes: Sequence[Tensor | None], by: Sequence[Tensor], *, keep: bool = False
) -> list[Tensor | None]:
    """Return v . d g / d by for a gradient g with its graph: the backward pass of g, with v as its cotangent.

    Args:
        values: v, aligned with `slopes`; None is zero.
        slopes: g.
        by: what to differentiate by.
        keep: the graph is needed again.
    """
    pairs = [(v, g) for v, g in zip(values, slopes, strict=True) if v is not None and g is not None and g.requires_grad]
    if not pairs:
        return [None] * len(by)
    cotangents, outputs = zip(*pairs, strict=True)
    return list(torch.autograd.grad(outputs, by, cotangents, retain_graph=keep, allow_unused=True))


def step_sizes(optimizer: torch.optim.Optimizer, theta: Sequence[Tensor], *, schedule: bool = True) -> list[Tensor]:
    """Return how far theta moves, in the long run, for a unit of gradient: a tensor a weight, or a scalar.

    SGD: lr / (1 - momentum). Optimizers that keep `exp_avg_sq` (Adam and its kin): lr / (sqrt(v) + eps), with v
    corrected for its start. Before the first step, and for others: lr.

    Args:
        optimizer: of theta.
        theta: its parameters, in the order wanted.
        schedule: take the learning rate of this moment, else that at the start of the schedule.
    """
    if isinstance(optimizer, LearnedOptimizer):
        raise UserError(
            "a learned optimizer does not say how far it goes for a unit of gradient, which this estimator needs; use "
            "Direct, or train theta with AdamW or SGD"
        )
    groups = {id(p): group for group in optimizer.param_groups for p in group["params"]}
    sizes = []
    for parameter in theta:
        group, state = groups.get(id(parameter)), optimizer.state.get(parameter, {})
        if group is None:
            raise UserError("the estimator's optimizer does not hold all of theta; give it the one that trains it")
        lr = torch.as_tensor(group["lr"] if schedule else group.get("initial_lr", group["lr"])).to(parameter)
        if "exp_avg_sq" in state:
            beta = group["betas"][1]
            second = state["exp_avg_sq"] / (1 - beta ** float(state["step"]))
            lr = lr / (second.sqrt() + group["eps"])
        elif group.get("momentum"):
            lr = lr / (1 - group["momentum"])
        sizes.append(lr.detach())
    return sizes


@contextmanager
def training_mode_with_rho_grad(model: nn.Module, rho: Sequence[nn.Parameter]) -> Iterator[None]:
    """Run in training mode with gradients that reach rho; afterwards all modes are what they were."""
    modes = [(module, module.training) for module in model.modules()]
    flags = [parameter.requires_grad for parameter in rho]
    drawing = stochastic(model)
    if not model.training:  # in a model that trains, layers that somebody froze stay in evaluation mode
        train_mode(model)
    for module in drawing:
        module.learning = True
    for parameter in rho:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for module in drawing:
            module.learning, module.sign = False, 1.0
        for parameter, flag in zip(rho, flags, strict=True):
            parameter.requires_grad_(flag)
        for member, training in modes:
            member.training = training


@contextmanager
def twice_differentiable(device: torch.device) -> Iterator[None]:
    """Use operations that have a second derivative: of attention's the plain one alone has."""
    full = nullcontext() if device.type == "meta" else torch.autocast(device.type, enabled=False)
    try:
        with full, sdpa_kernel(SDPBackend.MATH):
            yield
    except (RuntimeError, NotImplementedError) as error:
        if device.type != "meta" and ("derivative for" in str(error) or "double backward" in str(error).lower()):
            raise UserError(
                f"the model has an operation that cannot be differentiated twice, which this estimator needs "
                f"({error}); use estimator 'direct'"
            ) from error
        raise
