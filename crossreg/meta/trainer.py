"""Meta-training: windows of many inner trainings, and after each an update of the rule by all of them."""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from crossreg.core import metrics
from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed
from crossreg.meta.episodes import Episodes, Seen, perturbation
from crossreg.meta.plan import MetaPlan
from crossreg.meta.tasks import MetaTask
from crossreg.optimizers import About, LearnedRule, UpdateRule

__all__ = ["MetaTrainer", "meta_train", "shares", "tasks_of_slots"]


class MetaTrainer:
    """Holds the rule's weights and moves them by what inner trainings have seen; where these run is not its matter.

    Args:
        rule: form of the update rule.
        plan: of the meta-training.

    Attributes:
        weights: of the rule, by name, float32, on the CPU.
        iteration: updates done.
    """

    def __init__(self, rule: UpdateRule, plan: MetaPlan) -> None:
        self.rule, self.plan, self.iteration = rule, plan, 0
        generator = torch.Generator().manual_seed(derive_seed(plan.seed, "rule"))
        self.weights = {name: one.requires_grad_() for name, one in rule.initial(generator).items()}
        self._optimizer = torch.optim.Adam(self.weights.values(), lr=plan.lr)

    def update(self, seen: Sequence[Seen], gradients: Sequence[Mapping[str, Tensor]]) -> dict[str, float]:
        """Move the weights by what all inner trainings of an iteration have seen.

        Args:
            seen: of every inner training, in any order.
            gradients: sums over inner trainings, from each group of them; empty mappings where the estimator is nres.

        Returns:
            What it was like, by name: the meta-loss and where inner trainings are, see `measured`.
        """
        for name, weight in self.weights.items():
            weight.grad = torch.zeros_like(weight)
            for found in gradients:
                if name in found:
                    weight.grad += found[name].cpu() / len(seen)
        for one in sorted(seen, key=lambda one: one.slot):
            if one.noise is not None:
                seed, scalar = one.noise
                for name, noise in perturbation(self.weights, seed, self.plan.sigma).items():
                    gradient = self.weights[name].grad
                    assert gradient is not None
                    gradient.add_(noise.detach(), alpha=scalar / len(seen))
        norm = float(torch.nn.utils.clip_grad_norm_(self.weights.values(), self.plan.clip))
        for group in self._optimizer.param_groups:
            group["lr"] = self.plan.lr * 0.5 * (1 + math.cos(math.pi * self.iteration / self.plan.iterations))
        if math.isfinite(norm):
            self._optimizer.step()
        self.iteration += 1
        return {**measured(seen), metrics.META_GRADIENT_NORM: norm}

    def learned(self, about: About) -> LearnedRule:
        """Return the rule as it is now."""
        return LearnedRule(self.rule, {name: one.detach().clone() for name, one in self.weights.items()}, about)

    def state_dict(self) -> dict[str, Any]:
        """Return a copy of all that goes on, as tensors and plain values: later updates leave it as it is."""
        return {
            "iteration": self.iteration,
            "weights": {name: one.detach().clone() for name, one in self.weights.items()},
            "optimizer": copy.deepcopy(self._optimizer.state_dict()),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.iteration = state["iteration"]
        with torch.no_grad():
            for name, one in self.weights.items():
                one.copy_(state["weights"][name])
        self._optimizer.load_state_dict(copy.deepcopy(state["optimizer"]))  # which would hold the same tensors


def measured(seen: Sequence[Seen]) -> dict[str, float]:
    """Return the mean logarithm of the meta-loss, over all and by age, and the share that diverged.

    `meta/loss/to_00100` is of trainings that were 51 to 100 steps old.
    """
    sound = [one for one in seen if not one.diverged]
    values = {metrics.META_DIVERGED: 1 - len(sound) / len(seen)}
    if not sound:
        return values
    values[metrics.META_LOSS] = sum(one.loss for one in sound) / len(sound)
    ages: dict[int, list[float]] = {}
    for one in sound:
        ages.setdefault(50 * 2 ** max(0, math.ceil(math.log2(one.age / 50))), []).append(one.loss)
    return values | {metrics.meta_loss_to(age): sum(losses) / len(losses) for age, losses in sorted(ages.items())}


def tasks_of_slots(plan: MetaPlan, num_tasks: int) -> list[int]:
    """Return for every inner training the number of its task: they take turns.

    Raises:
        UserError: fewer inner trainings than tasks.
    """
    if plan.trainings < num_tasks:
        raise UserError(f"{plan.trainings} inner trainings cannot be of {num_tasks} tasks; give as many at least")
    return [slot % num_tasks for slot in range(plan.trainings)]


def shares(plan: MetaPlan, actors: int, num_tasks: int) -> list[list[int]]:
    """Return the slots of every actor: of every task as many as of the others, as far as it goes.

    Raises:
        UserError: more actors than inner trainings.
    """
    if not 1 <= actors <= plan.trainings:
        raise UserError(f"there are {plan.trainings} inner trainings for {actors} actors; each needs one at least")
    ordered = sorted(range(plan.trainings), key=lambda slot: (slot % num_tasks, slot))
    return [sorted(ordered[actor::actors]) for actor in range(actors)]


def meta_train(rule: UpdateRule, plan: MetaPlan, tasks: Sequence[MetaTask]) -> MetaTrainer:
    """Meta-train in this process, from begin to end.

    Args:
        rule: form of the update rule.
        plan: of the meta-training.
        tasks: what inner trainings are of, all on one device.

    Returns:
        The trainer, which holds the rule.
    """
    trainer, numbers = MetaTrainer(rule, plan), tasks_of_slots(plan, len(tasks))
    groups = [
        Episodes(task, rule, plan, [slot for slot, number in enumerate(numbers) if number == index])
        for index, task in enumerate(tasks)
    ]
    for iteration in range(plan.iterations):
        weights = {name: one.detach().to(tasks[0].device) for name, one in trainer.weights.items()}
        seen, gradients = zip(*(group.run(weights, iteration) for group in groups), strict=True)
        trainer.update([one for some in seen for one in some], gradients)
    return trainer
