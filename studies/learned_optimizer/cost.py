"""What a step of a learned optimizer costs, beside Adam's and a whole training step, in one process on one thread."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import torch
from torch import nn

from crossreg.models import build
from crossreg.optimizers import About, LearnedOptimizer, LearnedRule, update_rule

__all__ = ["step_cost"]

_REPEATS = 15


def step_cost() -> dict[str, float]:
    """Return seconds of a step, medians of interleaved ones.

    `small` is a perceptron 784-20-10, `cnn` the product's at 32x32; batches of 128.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        torch.manual_seed(0)
        small = nn.Sequential(nn.Flatten(), nn.Linear(784, 20), nn.ReLU(), nn.Linear(20, 10))
        networks = {
            "small": (small, (784,)),
            "cnn": (build("cnn", input_shape=(3, 32, 32), num_outputs=10), (3, 32, 32)),
        }
        return {
            key: value for name, (model, shape) in networks.items() for key, value in _of(name, model, shape).items()
        }
    finally:
        torch.set_num_threads(threads)


def _of(name: str, model: nn.Module, shape: tuple[int, ...]) -> dict[str, float]:
    x, y = torch.randn(128, *shape), torch.randint(0, 10, (128,))

    def gradient() -> None:
        model.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()

    def rule(form: str) -> LearnedRule:
        made = update_rule(form)
        return LearnedRule(made, made.initial(torch.Generator().manual_seed(0)), About(10**6, 1e-6, "none"))

    calls: dict[str, Callable[[], object]] = {
        "gradient": gradient,
        "adam": torch.optim.Adam(model.parameters(), lr=1e-6).step,
        **{form: LearnedOptimizer(model.parameters(), rule(form)).step for form in ("mlp", "lstm")},
    }
    seconds: dict[str, list[float]] = {key: [] for key in calls}
    for repeat in range(_REPEATS + 3):
        for key, call in calls.items():
            began = time.perf_counter()
            call()
            if repeat >= 3:
                seconds[key].append(time.perf_counter() - began)
    return {f"{name}/{key}": statistics.median(values) for key, values in seconds.items()}
