"""Meta-tasks from data as `crossreg train` takes them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import partial
from typing import Literal

import numpy as np
import torch
import torch.nn.functional as F
from torch.func import grad_and_value, vmap

from crossreg import models
from crossreg.core.errors import UserError
from crossreg.meta import NETWORKS, MetaTask, build_small
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.services.meta_training.config import MetaTrainConfig
from crossreg.services.training.assemble import preprocess_of, targets_of

__all__ = ["TaskData", "load_tasks"]

_SIDE = 8  # pixels, of what small networks see


@dataclass(frozen=True, eq=False)
class TaskData:
    """A meta-task as it travels to actors.

    Attributes:
        name: "DATA:NETWORK".
        network: a small one, or a model as `crossreg train --model` takes it.
        x: inputs as the network takes them, `[N, ...]`: standardized float32, or whole numbers for one's own function.
        y: int64 `[N]`, or float32 `[N, outputs]` in units of the targets' deviation.
        num_outputs: of the network.
        task: "classification" or "regression".
        batch_size: examples in an inner step.
    """

    name: str
    network: str
    x: np.ndarray
    y: np.ndarray
    num_outputs: int
    task: Literal["classification", "regression"]
    batch_size: int

    def meta_task(self, device: torch.device) -> MetaTask:
        """Return the task on a device.

        Raises:
            UserError: the network does not take such data, or there are too few.
        """
        shape = self.x.shape[1:]
        if self.network in NETWORKS:
            build = partial(build_small, self.network, shape, self.num_outputs)
        else:
            build = partial(models.build, self.network, input_shape=shape, num_outputs=self.num_outputs)
        x, y = torch.tensor(self.x, device=device), torch.tensor(self.y, device=device)
        return MetaTask.of(self.name, build, x, y, self.task, self.batch_size)


def load_tasks(config: MetaTrainConfig) -> list[TaskData]:
    """Return the tasks, each of which has taken a batch.

    Raises:
        UserError: data that cannot be loaded, or a network that does not take them.
    """
    loaded: dict[str, Dataset] = {}
    found = []
    for name in config.tasks:
        data, _, network = name.partition(":")
        if data not in loaded:
            loaded[data] = load_data(DataConfig(name=data, seed=0))
        one = _task(name, network, loaded[data], config.batch_size)
        _try(one)
        found.append(one)
    return found


def _task(name: str, network: str, data: Dataset, batch_size: int) -> TaskData:
    parts, preprocess = (data.train, data.reg), preprocess_of(data, network)
    x = torch.from_numpy(np.concatenate([part.x for part in parts]))
    x = x if preprocess is None else preprocess(x)
    y = np.concatenate([targets_of(data, part) for part in parts])
    if network in NETWORKS and x.ndim == 4 and max(x.shape[2:]) > _SIDE:
        x = F.adaptive_avg_pool2d(x, _SIDE)
        x = x / x.std()
    if not bool(x.isfinite().all()):
        raise UserError(f"task {name!r}: its inputs hold NaN (sequences of several lengths?), which no meta-task takes")
    return TaskData(name, network, x.numpy(), y, data.num_outputs, data.task, batch_size)


def _try(one: TaskData) -> None:
    """Find what a network cannot take, before anything is started."""
    task = one.meta_task(torch.device("cpu"))
    theta = torch.stack([task.initial(seed) for seed in range(2)])
    x, y = (part[: 2 * task.batch_size].unflatten(0, (2, task.batch_size)) for part in (task.x, task.y))
    try:
        value = vmap(grad_and_value(task.value), randomness="different")(theta, x, y)[1].sum()
    except Exception as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(
            f"task {one.name!r}: the network cannot take inputs of {one.x.shape[1:]}, or several at once: {reason}"
        ) from error
    if not math.isfinite(float(value)):
        raise UserError(f"task {one.name!r}: the loss of a fresh network is {float(value)}")
