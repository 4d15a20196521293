"""A learned update rule as an optimizer, as PyTorch knows them."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.optimizers.file import LearnedRule, load_rule
from crossreg.optimizers.layout import Layout

__all__ = ["LearnedOptimizer"]

_TOGETHER = 1 << 17
"""Coordinates that are updated at once, if no parameter has more: so many stay in a processor's cache."""
_KEEP_EVERY = 10
"""Steps between looks at the weights, after each of which they are kept or taken back."""


class LearnedOptimizer(torch.optim.AdamW):
    """Moves weights by a learned update rule, and by AdamW from when that fails.

        theta <- theta - lr (update(gradients so far, theta) + weight_decay theta)

    A schedule of the learning rate and weight decay, decoupled as AdamW's, are the run's own. All that it has learned
    of a run is in its state, so a run that is saved and restored goes on exactly.

    Every tenth step the weights are looked at. Where their norm is not finite or above `norm_limit` times that of the
    start, they are taken back to where they last were not, a warning says so, and from there on it is AdamW.

    Args:
        params: parameters or parameter groups, dense.
        learned: the rule, see `load_rule`; the one shipped where none is given.
        lr: learning rate; None takes the one that the rule was meta-trained with.
        weight_decay: coefficient, per unit of learning rate.
        betas: of AdamW, where that takes over.
        norm_limit: factor by which the norm of all weights may grow.

    Attributes:
        learned: the rule.

    Raises:
        UserError: `norm_limit` not above 1; in a step, sparse or complex gradients; a state of another rule.
    """

    def __init__(
        self,
        params: Iterable[nn.Parameter] | Iterable[dict[str, Any]],
        learned: LearnedRule | None = None,
        lr: float | None = None,
        *,
        weight_decay: float = 0.0,
        betas: tuple[float, float] = (0.9, 0.999),
        norm_limit: float = 10.0,
    ) -> None:
        if not norm_limit > 1:
            raise UserError(f"norm_limit is {norm_limit}; it must be above 1")
        self.learned = learned or load_rule()
        self._weights: dict[tuple[torch.device, torch.dtype], dict[str, Tensor]] = {}
        super().__init__(params, lr=self.learned.about.lr if lr is None else lr, betas=betas, weight_decay=weight_decay)
        self.norm_limit = norm_limit
        own: dict[str, Any] = {"rule": self.learned.digest, "steps": 0, "most": None, "fallen_back": None}
        self.defaults |= own
        for group in self.param_groups:
            for name, value in own.items():
                group.setdefault(name, value)

    @property
    def fallen_back(self) -> int | None:
        """The step at which AdamW took over; None where it did not."""
        found: int | None = self.param_groups[0]["fallen_back"]
        return found

    @property
    def steps(self) -> int:
        """Steps taken so far."""
        return int(self.param_groups[0]["steps"])

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Restore what `state_dict` returned.

        Raises:
            UserError: it is of another rule.
        """
        for group in state_dict["param_groups"]:
            if group.get("rule") != self.learned.digest:
                raise UserError(
                    f"this state is of a learned optimizer {group.get('rule')}, and this one is {self.learned.digest}; "
                    "take the file that the run began with"
                )
        super().load_state_dict(state_dict)

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Take a step; a closure is called once, before it."""
        if self.fallen_back is not None:
            self._count()
            return super().step(closure)
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        with torch.no_grad():
            self._move()
        return loss

    def _move(self) -> None:
        if self.param_groups[0]["most"] is None:
            self._begin()
        for group in self.param_groups:
            for parameters in self._chunks(group["params"]):
                self._update(group, parameters)
        self._count()
        if self.steps % _KEEP_EVERY == 0:
            self._look()

    def _count(self) -> None:
        for group in self.param_groups:
            group["steps"] += 1
        if self.steps == self.learned.about.horizon + 1:
            warnings.warn(
                f"step {self.steps}: the learned optimizer was meta-trained on trainings of up to "
                f"{self.learned.about.horizon} steps, and this one goes on beyond",
                stacklevel=3,
            )

    def _chunks(self, parameters: Iterable[nn.Parameter]) -> Iterator[list[Tensor]]:
        """Return the parameters that have a gradient, as many at a time as are updated at once.

        Those of a chunk lie on one device, are of one dtype, and have taken as many steps: a layer that trains from
        later on is younger than the others.

        Raises:
            UserError: a sparse or complex gradient.
        """
        chunk: list[Tensor] = []
        before: tuple[Any, ...] | None = None
        for parameter in parameters:
            if parameter.grad is None:
                continue
            if parameter.grad.is_sparse or parameter.is_complex():
                raise UserError("a learned optimizer takes dense real gradients, and here is a sparse or complex one")
            alike = parameter.device, parameter.dtype, float(self.state[parameter].get("step", 0))
            full = sum(map(torch.numel, chunk)) + parameter.numel() > _TOGETHER
            if chunk and (full or alike != before):
                yield chunk
                chunk = []
            chunk.append(parameter)
            before = alike
        if chunk:
            yield chunk

    def _update(self, group: dict[str, Any], parameters: list[Tensor]) -> None:
        layout = Layout.of(parameters)
        device, dtype = parameters[0].device, torch.promote_types(parameters[0].dtype, torch.float32)
        with torch.autocast(device.type, enabled=False):
            theta = layout.flat(parameters).to(dtype)
            gradient = layout.flat([parameter.grad for parameter in parameters]).to(dtype)  # type: ignore[misc]
            states = [self.state[parameter] for parameter in parameters]
            for parameter, state in zip(parameters, states, strict=True):
                if not state:
                    state["step"] = torch.zeros(())  # on the CPU, as PyTorch keeps it
                    state["memory"] = parameter.new_zeros(self.learned.rule.memory, *parameter.shape)
                    state["kept"] = parameter.clone()
                state["step"] += 1
            memory = layout.flat([state["memory"] for state in states]).to(dtype)
            direction, memory = self.learned.rule.update(
                self._weights_as(device, dtype), memory, gradient, theta, states[0]["step"], layout
            )
        parts = zip(parameters, states, layout.apart(direction), layout.apart(memory), strict=True)
        for parameter, state, move, kept in parts:
            parameter.mul_(1 - group["lr"] * group["weight_decay"]).sub_(move.to(parameter.dtype), alpha=group["lr"])
            state["memory"].copy_(kept)

    def _weights_as(self, device: torch.device, dtype: torch.dtype) -> dict[str, Tensor]:
        if (device, dtype) not in self._weights:
            self._weights[device, dtype] = {name: one.to(device, dtype) for name, one in self.learned.weights.items()}
        return self._weights[device, dtype]

    def _all(self) -> list[Tensor]:
        return [parameter for group in self.param_groups for parameter in group["params"]]

    def _norm(self) -> float:
        return float(nn.utils.get_total_norm([parameter.detach() for parameter in self._all()]))

    def _begin(self) -> None:
        most = self.norm_limit * max(self._norm(), 1.0)
        for group in self.param_groups:
            group["most"] = most

    def _look(self) -> None:
        """Keep the weights if they are sound; else take them back, and let AdamW go on."""
        norm, most = self._norm(), self.param_groups[0]["most"]
        if norm <= most:  # false for NaN
            for parameter, state in self.state.items():
                state["kept"].copy_(parameter)
            return
        for parameter, state in self.state.items():
            parameter.copy_(state["kept"])
        self.state.clear()
        for group in self.param_groups:
            group["fallen_back"] = self.steps
        warnings.warn(f"step {self.steps}: {self.why_fallen_back(norm)}", stacklevel=4)

    def why_fallen_back(self, norm: float | None = None) -> str:
        """Return in words what made AdamW take over."""
        found = "were not finite or too large" if norm is None else f"had a norm of {norm:.3g}"
        return (
            f"the learned optimizer failed: the weights {found}, and at most {self.param_groups[0]['most']:.3g} "
            f"({self.norm_limit:g} times the norm they started with) is let be; AdamW goes on from where they were "
            f"at step {self.param_groups[0]['fallen_back'] - _KEEP_EVERY}"
        )
