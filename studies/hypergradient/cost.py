"""What an update of rho costs on a network of ordinary size: time and memory, beside those of a step of theta."""

from __future__ import annotations

import statistics
import time
import weakref
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from crossreg import Batches, CrossRegularizer, Preprocess, UserError, inject_noise, training_loss
from crossreg.estimators import Estimator
from crossreg.losses import as_loss
from crossreg.models.mlp import mlp
from crossreg.services.data import DataConfig, load_data

__all__ = ["BATCH", "INTERVAL", "SAMPLES", "measure"]

BATCH = 128
SAMPLES = 3
"""Noise draws of an update."""
INTERVAL = 30
"""Steps of theta between updates, for the share of the time that updates take."""
_WARM_UP = 5  # steps of theta before any are timed
_UPDATES = 3  # that are timed, each after so many steps:
_STEPS = 10


def measure(
    data: DataConfig,
    seed: int,
    estimators: dict[str, Callable[[Batches, torch.optim.Optimizer], Estimator]],
    **shape: Any,
) -> dict[str, dict[str, float]]:
    """Return what one update costs by estimator.

    Args:
        data: a classification task.
        seed: of the weights and the order of batches.
        estimators: by name, with a function that makes each of batches of the training split and theta's optimizer.
        shape: of the multilayer perceptron, see `crossreg.models.mlp`.

    Returns:
        By estimator: "seconds" of processor time (median of a few) and "bytes" (the most that is held at once beyond
        what was there before) of an update, and "theta_seconds" and "theta_bytes" of a step of theta.
    """
    dataset = load_data(data)
    if dataset.task != "classification":
        raise UserError(f"{data.name} is no classification task; the estimators' cost is measured on one")
    torch.manual_seed(seed)
    preprocess = Preprocess(torch.as_tensor(dataset.mean), torch.as_tensor(dataset.std))
    x, y = torch.as_tensor(dataset.train.x), torch.as_tensor(dataset.train.y)
    rows = min(BATCH, len(y), len(dataset.reg.y))
    train, again = (Batches(x, y, rows, preprocess=preprocess, drop_last=True, seed=seed + n) for n in (0, 1))
    reg = Batches(
        torch.as_tensor(dataset.reg.x), torch.as_tensor(dataset.reg.y), rows, preprocess=preprocess, drop_last=True
    )
    model = inject_noise(mlp(input_shape=tuple(x.shape[1:]), num_outputs=len(dataset.classes), **shape))
    regularizer = CrossRegularizer(model, "classification", reg, 1, SAMPLES)
    optimizer = torch.optim.AdamW(regularizer.theta, lr=1e-3)
    step = _theta_step(model, optimizer, train)
    for _ in range(_WARM_UP):
        step()
    found = {}
    for name, make in estimators.items():
        regularizer = CrossRegularizer(model, "classification", reg, 1, SAMPLES, estimator=make(again, optimizer))
        found[name] = _costs_of(regularizer.update, step)
    return found


def _costs_of(update: Callable[[], object], step: Callable[[], None]) -> dict[str, float]:
    """Return the costs of an update of rho and of a step of theta, as `measure` does."""
    update()
    updates, steps = [], []
    for _ in range(_UPDATES):  # in turn, so that both are timed under the same load of the machine
        steps += [_seconds(step) for _ in range(_STEPS)]
        updates.append(_seconds(update))
    return {
        "seconds": statistics.median(updates),
        "theta_seconds": statistics.median(steps),
        "bytes": _peak(update),
        "theta_bytes": _peak(step),
    }


def _theta_step(model: nn.Module, optimizer: torch.optim.Optimizer, train: Batches) -> Callable[[], None]:
    loss = as_loss("classification")
    x, y = next(iter(train))

    def step() -> None:
        model.train()
        training_loss(model, loss, model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()

    return step


def _seconds(run: Callable[[], object]) -> float:
    """Return how long the processors were busy, which other processes on the machine disturb less than the clock."""
    began = time.process_time()
    run()
    return time.process_time() - began


def _peak(run: Callable[[], object]) -> float:
    """Return the most bytes of tensors that were held at once beyond those from before.

    The peak of the process would count what it has held before, and pages that the allocator keeps.
    """
    with _Held() as held:
        run()
    return float(held.peak)


class _Held(TorchDispatchMode):
    """Adds up the storages that operations make, until each is freed."""

    def __init__(self) -> None:
        super().__init__()
        self.now = self.peak = 0
        self._known: weakref.WeakSet[torch.UntypedStorage] = weakref.WeakSet()

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        given = {t.untyped_storage()._cdata for t in tree_leaves((args, kwargs)) if isinstance(t, Tensor)}
        result = func(*args, **(kwargs or {}))
        for tensor in tree_leaves(result):
            if isinstance(tensor, Tensor) and tensor.untyped_storage()._cdata not in given:
                self._add(tensor.untyped_storage())
        return result

    def _add(self, storage: torch.UntypedStorage) -> None:
        if storage not in self._known:
            self._known.add(storage)
            size = storage.nbytes()
            weakref.finalize(storage, self._free, size)
            self.now += size
            self.peak = max(self.peak, self.now)

    def _free(self, size: int) -> None:
        self.now -= size
