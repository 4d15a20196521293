"""A core's share of a meta-training: its inner trainings, for as long as it lives."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import ray
import torch

from crossreg.meta import Episodes, MetaPlan, Seen, tasks_of_slots
from crossreg.optimizers import Weights, update_rule
from crossreg.services.meta_training.tasks import TaskData

__all__ = ["EpisodeActor"]


@ray.remote(max_restarts=0)
class EpisodeActor:
    """Runs the inner trainings of some slots; see `crossreg.meta.Episodes`.

    Args:
        tasks: of the meta-training.
        rule: form of the update rule.
        plan: of the meta-training.
        slots: numbers of its own inner trainings.
        gpu: on the GPU that Ray assigned.
    """

    def __init__(self, tasks: list[TaskData], rule: str, plan: MetaPlan, slots: Sequence[int], gpu: bool) -> None:
        torch.set_num_threads(1)
        self._device = torch.device("cuda" if gpu else "cpu")
        numbers = tasks_of_slots(plan, len(tasks))
        self._groups = [
            Episodes(task.meta_task(self._device), update_rule(rule), plan, own)
            for number, task in enumerate(tasks)
            if (own := [slot for slot in slots if numbers[slot] == number])
        ]

    def run(self, weights: Weights, iteration: int) -> tuple[list[Seen], list[dict[str, torch.Tensor]]]:
        """Move its inner trainings on by a window; see `Episodes.run`."""
        here = {name: one.to(self._device) for name, one in weights.items()}
        seen, gradients = [], []
        for group in self._groups:
            found, gradient = group.run(here, iteration)
            seen += found
            gradients.append({name: one.cpu() for name, one in gradient.items()})
        return seen, gradients

    def state(self) -> dict[int, dict[str, Any]]:
        """Return all that goes on, by slot."""
        return {slot: one for group in self._groups for slot, one in group.state().items()}

    def load_state(self, state: dict[int, dict[str, Any]]) -> None:
        """Restore what `state` returned, of its own slots at least."""
        for group in self._groups:
            group.load_state(state)
