"""What runs on Ray Serve: replicas that hold models and answer batches. Needs `crossreg[serve]`."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import ray
import torch
from ray import serve

from crossreg.services.serving.config import ServeConfig
from crossreg.services.serving.loading import LoadedModel, load

__all__ = ["Handed", "Replica"]

# the one in use, and the one before for requests that are still on their way
_KEPT = 2


@dataclass(frozen=True)
class Handed:
    """A model on its way to replicas.

    Attributes:
        key: names it.
        files: reference to the content of its files in Ray's object store. Held inside an object: a bare reference
            would be fetched with every request.
    """

    key: str
    files: Any


@dataclass(frozen=True)
class _Request:
    x: np.ndarray
    model: Handed
    size: int


def _size(requests: Iterable[_Request]) -> int:
    return sum(request.size for request in requests)


@serve.deployment
class Replica:
    """One process that predicts; requests that wait at the same time share forward passes.

    A request brings the model it wants. A replica that does not hold it yet takes it from Ray's object store, so
    that a new version, and a replica that replaces a lost one, need no store.
    """

    def __init__(self, config: ServeConfig) -> None:
        # cores are used by replicas: two threads made the small batches of a small network six times slower
        torch.set_num_threads(1)
        self._config = config
        self._models: dict[str, LoadedModel] = {}
        # loading draws from the global generators that predictions are seeded on, so both take turns here
        self._thread = ThreadPoolExecutor(1)
        self._together.set_max_batch_size(config.max_batch)
        self._together.set_batch_wait_timeout_s(config.batch_wait_ms / 1000)

    async def __call__(self, x: np.ndarray, model: Handed) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and spread of the predictions for `[N, ...]` inputs."""
        # a request larger than a batch is one by itself, in several passes
        result: tuple[np.ndarray, np.ndarray] = await self._together(
            _Request(x, model, min(len(x), self._config.max_batch))
        )
        return result

    @serve.batch(max_batch_size=32, batch_wait_timeout_s=0.002, batch_size_fn=_size)
    async def _together(self, requests: list[_Request]) -> list[tuple[np.ndarray, np.ndarray]]:
        return await asyncio.get_running_loop().run_in_executor(self._thread, self._predict, requests)

    def _predict(self, requests: list[_Request]) -> list[tuple[np.ndarray, np.ndarray]]:
        answers: dict[int, tuple[np.ndarray, np.ndarray]] = {}
        groups: dict[str, list[int]] = {}  # two while the model changes
        for index, request in enumerate(requests):
            groups.setdefault(request.model.key, []).append(index)
        for indices in groups.values():
            model = self._loaded(requests[indices[0]].model)
            inputs = [requests[index].x for index in indices]
            mean, spread = model.predict(np.concatenate(inputs), self._config.samples, self._config.seed)
            ends = np.cumsum([len(x) for x in inputs])[:-1]
            answers |= dict(zip(indices, zip(np.split(mean, ends), np.split(spread, ends), strict=True), strict=True))
        return [answers[index] for index in range(len(requests))]

    def _loaded(self, wanted: Handed) -> LoadedModel:
        if wanted.key not in self._models:
            self._models[wanted.key] = load(ray.get(wanted.files), self._config.max_batch, self._config.trusted)
            while len(self._models) > _KEPT:
                del self._models[next(iter(self._models))]
        return self._models[wanted.key]
