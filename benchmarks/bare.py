"""A training of the product without its driver: no MLflow, no command line; notes when it took which steps.

    python -m benchmarks.bare SETTINGS FILE STEP...

SETTINGS is a `TrainConfig` as JSON; the file gets the seconds since the epoch by step. The same under `torchrun`, and
as a function in a worker of Ray Train.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Collection
from pathlib import Path

import torch

from crossreg import Callback, Trainer, process_group
from crossreg.core.distributed import rank
from crossreg.services.data import load_data
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import resolve

__all__ = ["train"]


class _Clock(Callback):
    def __init__(self, steps: Collection[int]) -> None:
        self.steps, self.times = steps, dict[int, float]()

    def on_step(self, trainer: Trainer) -> None:
        if trainer.step in self.steps:
            self.times[trainer.step] = time.time()


def train(settings: str, path: str, steps: Collection[int]) -> None:
    """Train, and write when rank 0 took the given steps.

    Args:
        settings: of a `TrainConfig`, as JSON.
        path: of the file, which gets a JSON object.
        steps: their numbers, from 1.
    """
    config = TrainConfig.model_validate_json(settings)
    data = load_data(config.data)
    clock = _Clock(steps)
    build_trainer(resolve(config, data), data, torch.device("cpu"), [clock]).fit()
    if rank() == 0:
        Path(path).write_text(json.dumps(clock.times))


if __name__ == "__main__":
    with process_group("gloo"):
        train(sys.argv[1], sys.argv[2], [int(step) for step in sys.argv[3:]])
    os._exit(0)  # now and then PyTorch aborts while Python ends ("terminate called without an active exception")
