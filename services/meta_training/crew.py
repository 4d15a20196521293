"""The actors of a meta-training: as many as there is room for, replaced when one is lost."""

from __future__ import annotations

from typing import Any

import ray
import torch
from ray.exceptions import RayActorError

from crossreg.meta import MetaPlan, Seen, shares
from crossreg.optimizers import Weights
from crossreg.services.meta_training.actor import EpisodeActor
from crossreg.services.meta_training.tasks import TaskData

__all__ = ["ActorLostError", "Crew"]

_START_SECONDS = 120.0


class ActorLostError(Exception):
    """An actor died, or its node."""


class Crew:
    """Actors that share the inner trainings.

    Args:
        tasks: of the meta-training.
        rule: form of the update rule.
        plan: of the meta-training.
        wanted: most actors, of a core or a GPU each.
        gpu: whether each gets a GPU.

    Attributes:
        size: how many there are.
    """

    def __init__(self, tasks: list[TaskData], rule: str, plan: MetaPlan, wanted: int, gpu: bool) -> None:
        self._tasks, self._rule, self._plan, self._gpu = ray.put(tasks), rule, plan, gpu
        self._num_tasks, self._wanted = len(tasks), min(wanted, plan.trainings)
        self._actors: list[Any] = []

    @property
    def size(self) -> int:
        """How many there are."""
        return len(self._actors)

    def room(self) -> int:
        """Return how many there could be now."""
        unit = "GPU" if self._gpu else "CPU"
        return max(1, min(self._wanted, int(ray.cluster_resources().get(unit, 0))))

    def start(self, state: dict[int, dict[str, Any]] | None) -> None:
        """Start as many as there is room for, in place of those there are.

        Args:
            state: of all inner trainings; None begins them.

        Raises:
            ActorLostError: they do not come up.
        """
        self.stop()
        resources: dict[str, Any] = {"num_cpus": 1, "num_gpus": 1 if self._gpu else 0}
        made = EpisodeActor.options(**resources)  # type: ignore[attr-defined]
        self._actors = [
            made.remote(self._tasks, self._rule, self._plan, slots, self._gpu)
            for slots in shares(self._plan, self.room(), self._num_tasks)
        ]
        calls = [actor.load_state.remote(state) if state else actor.state.remote() for actor in self._actors]
        self._get(calls, _START_SECONDS)

    def run(self, weights: Weights, iteration: int) -> tuple[list[Seen], list[dict[str, torch.Tensor]]]:
        """Move all inner trainings on by a window; returns what all actors do, in their order.

        Raises:
            ActorLostError: one is lost; what the others did is too, until `start`.
        """
        reference = ray.put(dict(weights))
        found = self._get([actor.run.remote(reference, iteration) for actor in self._actors])
        return [one for seen, _ in found for one in seen], [one for _, gradients in found for one in gradients]

    def state(self) -> dict[int, dict[str, Any]]:
        """Return the state of all inner trainings, by slot.

        Raises:
            ActorLostError: one is lost.
        """
        return {
            slot: one
            for state in self._get([actor.state.remote() for actor in self._actors])
            for slot, one in state.items()
        }

    def stop(self) -> None:
        """End the actors."""
        for actor in self._actors:
            ray.kill(actor)
        self._actors = []

    def _get(self, references: list[Any], timeout: float | None = None) -> list[Any]:
        try:
            found: list[Any] = ray.get(references, timeout=timeout)
        except (RayActorError, ray.exceptions.GetTimeoutError) as error:
            raise ActorLostError(" ".join(str(error).split())[:200]) from error
        return found
