"""Inner trainings of one task, side by side: each at an age of its own, moved on a window at a time."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import torch
from torch import Tensor
from torch.func import vmap

from crossreg.core.random import derive_seed
from crossreg.meta.losses import MetaLoss
from crossreg.meta.plan import MetaPlan
from crossreg.meta.tasks import MetaTask
from crossreg.optimizers import UpdateRule, Weights

__all__ = ["Episodes", "Seen", "perturbation"]

_DIVERGED = 10.0
"""An inner training ends where its loss is so many times that of its start; NaN is that too."""
_FLOOR = 1e-3
"""Added to a loss before its logarithm: below it there is little more to gain."""
_SLOTS_AT = {"theta": 1, "memory": 2}
"""The dimension of the slots in what a state holds, where it is not the first."""
_STEPS = MetaLoss()
"""What inner steps follow: the gradient of the training loss."""


@dataclass(frozen=True)
class Seen:
    """What a window of one inner training was like.

    Attributes:
        slot: its number among all.
        age: inner steps done after the window.
        loss: mean logarithm of the meta-loss over the window.
        diverged: it was ended.
        noise: of nres: seed of the perturbation, and half the difference of the pair's losses over the square of
            sigma: the estimate of the gradient is the perturbation times that.
    """

    slot: int
    age: int
    loss: float
    diverged: bool = False
    noise: tuple[int, float] | None = None


class Episodes:
    """Inner trainings of one task, as many as there are slots; each begins anew when it has reached its horizon.

    What happens in a slot depends on its number and the rule's weights so far, and on nothing else: not on which slots
    are beside it. So it is the same on any number of actors, but for rounding.

    Args:
        task: what is trained.
        rule: form of the update rule.
        plan: of the meta-training.
        slots: numbers of the inner trainings, among all of the meta-training.
    """

    def __init__(self, task: MetaTask, rule: UpdateRule, plan: MetaPlan, slots: Sequence[int]) -> None:
        self.task, self.rule, self.plan, self.slots = task, rule, plan, list(slots)
        self.lr = rule.lr if plan.inner_lr is None else plan.inner_lr
        pairs = 2 if plan.estimator == "nres" else 1
        count, theta = len(slots), torch.zeros(pairs, len(slots), task.layout.num_coordinates, device=task.device)
        self._state: dict[str, Tensor] = {
            "theta": theta,
            "memory": rule.zeros(theta),
            "age": torch.zeros(count, dtype=torch.int64),
            "horizon": torch.zeros(count, dtype=torch.int64),
            "scale": torch.ones(count),
            "first": torch.full((count,), math.inf),
            "episode": torch.zeros(count, dtype=torch.int64),
        }

    def state(self) -> dict[int, dict[str, Tensor]]:
        """Return all that goes on, by slot."""
        return {
            slot: {name: one.select(_SLOTS_AT.get(name, 0), index).cpu().clone() for name, one in self._state.items()}
            for index, slot in enumerate(self.slots)
        }

    def load_state(self, state: dict[int, dict[str, Tensor]]) -> None:
        """Restore what `state` returned, of these slots at least."""
        for name, one in self._state.items():
            parts = [state[slot][name] for slot in self.slots]
            self._state[name] = torch.stack(parts, _SLOTS_AT.get(name, 0)).to(one)

    def run(self, weights: Weights, iteration: int) -> tuple[list[Seen], dict[str, Tensor]]:
        """Move every training on by a window.

        Args:
            weights: of the rule, on the task's device.
            iteration: number of the meta-training's update, from 0.

        Returns:
            What was seen; and the sum over slots of the gradients in the weights, by name, empty where the estimator
            is nres.
        """
        for index in range(len(self.slots)):
            if self._state["age"][index] >= self._state["horizon"][index]:
                self._begin(index, iteration)
        steps = self.plan.steps(iteration)
        if self.plan.estimator == "nres":
            return self._compare(weights, steps), {}
        leaves = {name: one.detach().clone().requires_grad_() for name, one in weights.items()}
        theta, memory = self._state["theta"][0], self._state["memory"][:, 0]
        losses, _, surrogate, theta, memory = self._unroll(leaves, theta, memory, steps, shared=True)
        gradients = torch.autograd.grad(surrogate, list(leaves.values()), allow_unused=True)
        found = {
            name: torch.zeros_like(one) if g is None else g.nan_to_num(0.0, 0.0, 0.0)
            for (name, one), g in zip(leaves.items(), gradients, strict=True)
        }
        self._state["theta"], self._state["memory"] = theta.detach()[None], memory.detach()[:, None]
        return self._seen(losses, steps), found

    def _begin(self, index: int, iteration: int) -> None:
        slot, plan, state = self.slots[index], self.plan, self._state
        episode = int(state["episode"][index]) + 1
        first = self.task.initial(derive_seed(plan.seed, "weights", slot, episode))
        generator = torch.Generator().manual_seed(derive_seed(plan.seed, "episode", slot, episode))
        share, scale = torch.rand(2, generator=generator).tolist()
        longest = plan.longest(iteration)
        # the first ones are cut short, each at another length, so that ages differ from then on
        share = 0.5 + share / 2 if episode > 1 else (slot + 1) / plan.trainings
        state["horizon"][index] = max(1, round(share * longest))
        state["scale"][index] = math.exp(plan.spread * (2 * scale - 1))
        state["theta"][:, index] = first / float(state["scale"][index])
        state["memory"][:, :, index] = 0
        state["age"][index], state["episode"][index], state["first"][index] = 0, episode, math.inf

    def _batches(self, steps: int, held_out: bool) -> list[tuple[Tensor, Tensor]]:
        """Return inputs and targets of so many steps, `[slots, batch, ...]` each."""
        ages, episodes = self._state["age"].tolist(), self._state["episode"].tolist()
        rows = torch.stack(
            [
                self.task.rows(steps, held_out, self.plan.seed, slot, episode, age)
                for slot, episode, age in zip(self.slots, episodes, ages, strict=True)
            ],
            dim=1,
        )
        return [(self.task.x[some], self.task.y[some]) for some in rows]

    def _rates(self, after: int) -> Tensor:
        """Return the learning rates so many steps from now, `[slots, 1]`: to zero along a cosine."""
        return (self.lr * 0.5 * (1 + torch.cos(math.pi * self._done(after)))).to(self.task.device)[:, None]

    def _done(self, after: int) -> Tensor:
        """Return the share of each inner training that is over so many steps from now, `[slots]`."""
        return ((self._state["age"] + after) / self._state["horizon"]).clamp(max=1)

    def _unroll(
        self, weights: Weights, theta: Tensor, memory: Tensor, steps: int, shared: bool
    ) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
        """Take inner steps.

        Args:
            weights: of the rule, one for all trainings or, not `shared`, each `[T, ...]`.
            theta: `[T, P]`, where T is the slots, or twice that for pairs.
            memory: `[memory, T, P]`.
            steps: how many.
            shared: see `weights`.

        Returns:
            The logarithms of the meta-loss after every step, `[steps, T]`; their mean over steps as they count, `[T]`;
            a scalar whose gradient in the weights is that of this mean, summed over trainings; theta and memory after
            the last step.
        """
        repeat = theta.shape[0] // len(self.slots)
        scale = self._state["scale"].to(theta.device).repeat(repeat)[:, None]
        update = self._update if shared else vmap(self._update, in_dims=(0, 1, 0, 0, 0), out_dims=(0, 1))
        inner, other = self._batches(steps + 1, False), None
        if self.plan.meta_loss.held_out:
            other = self._batches(steps + 1, True)
        ages = self._state["age"].to(theta.device).repeat(repeat)[:, None]
        gradient = scale * self._at(_STEPS, theta.detach() * scale, inner[0], repeat)[1]
        surrogate, losses, counted = theta.new_zeros(()), [], theta.new_zeros(len(theta))
        same = self.plan.meta_loss.name == "train"
        for number in range(steps):
            direction, memory = update(weights, memory, gradient, theta, (ages + number + 1).float())
            rate = self._rates(number).repeat(repeat, 1)
            theta = theta * (1 - rate * self.plan.weight_decay) - rate * direction
            here = theta.detach() * scale
            value, raw = self._at(self.plan.meta_loss, here, (other or inner)[number + 1], repeat)
            weight = self._weights_of(number).repeat(repeat)
            losses.append((value + _FLOOR).log())
            counted = counted + weight * losses[-1] / steps
            slope = (scale * raw * (weight / (value + _FLOOR))[:, None]).nan_to_num(0.0, 0.0, 0.0)
            # linear in theta, with the slope that the meta-loss defines: no second pass through the network
            surrogate = surrogate + (theta * slope).sum() / steps
            gradient = scale * (raw if same else self._at(_STEPS, here, inner[number + 1], repeat)[1])
        return torch.stack(losses), counted, surrogate, theta, memory

    def _weights_of(self, after: int) -> Tensor:
        """Return how much the meta-loss after one more step counts, `[slots]`: one on average over a training."""
        counts = (1 + self.plan.emphasis) * self._done(after + 1) ** self.plan.emphasis
        return counts.to(self.task.device)

    def _update(self, weights: Weights, memory: Tensor, gradient: Tensor, theta: Tensor, step: Tensor) -> Any:
        return self.rule.update(weights, memory, gradient, theta, step, self.task.layout)

    def _at(self, loss: MetaLoss, theta: Tensor, batch: tuple[Tensor, Tensor], repeat: int) -> tuple[Tensor, Tensor]:
        """Return the values `[T]` and slopes `[T, P]` of a loss at weights `[T, P]`."""
        x, y = (part.repeat(repeat, *(1,) * (part.ndim - 1)) for part in batch)

        def one(theta: Tensor, x: Tensor, y: Tensor) -> tuple[Tensor, Tensor]:
            return loss(lambda at: self.task.value(at, x, y), theta)

        with torch.no_grad():
            return vmap(one, randomness="different")(theta, x, y)

    def _compare(self, weights: Weights, steps: int) -> list[Seen]:
        """Move every pair on by a window: two trainings that differ in the sign of their rules' perturbation."""
        seeds = [
            derive_seed(self.plan.seed, "noise", slot, episode)
            for slot, episode in zip(self.slots, self._state["episode"].tolist(), strict=True)
        ]
        noises = [perturbation(weights, seed, self.plan.sigma) for seed in seeds]
        pairs = {
            name: torch.stack([one + sign * noise[name] for sign in (1, -1) for noise in noises])
            for name, one in weights.items()
        }
        theta, memory = self._state["theta"].flatten(0, 1), self._state["memory"].flatten(1, 2)
        with torch.no_grad():
            losses, counted, _, theta, memory = self._unroll(pairs, theta, memory, steps, shared=False)
        shape = (2, len(self.slots))
        self._state["theta"], self._state["memory"] = theta.unflatten(0, shape), memory.unflatten(1, shape)
        above, below = counted.unflatten(0, shape).tolist()
        scalars = [(up - down) / (2 * self.plan.sigma**2) for up, down in zip(above, below, strict=True)]
        seen = self._seen(losses.unflatten(1, shape).mean(1), steps)
        return [
            replace(one, noise=(seed, scalar if math.isfinite(scalar) else 0.0))
            for one, seed, scalar in zip(seen, seeds, scalars, strict=True)
        ]

    def _seen(self, losses: Tensor, steps: int) -> list[Seen]:
        """Grow older by a window, and end what has diverged.

        Args:
            losses: logarithms of the meta-loss after every step, `[steps, slots]`.
            steps: of the window.
        """
        state, found = self._state, []
        state["age"] += steps
        for index, (first, last, mean) in enumerate(
            zip(*losses[[0, -1]].tolist(), losses.mean(0).tolist(), strict=True)
        ):
            if math.isinf(state["first"][index]):
                state["first"][index] = first
            sound = last <= float(state["first"][index]) + math.log(_DIVERGED)  # false for NaN
            if not sound:
                state["age"][index] = state["horizon"][index]
            found.append(Seen(self.slots[index], int(state["age"][index]), mean if sound else math.nan, not sound))
        return found


def perturbation(weights: Weights, seed: int, sigma: float) -> dict[str, Tensor]:
    """Return normal numbers of deviation `sigma` for each of a rule's weights, which the seed decides."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: sigma * torch.randn(one.shape, generator=generator).to(one.device)
        for name, one in sorted(weights.items())
    }
