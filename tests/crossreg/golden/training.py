"""A short training whose every number is kept: noise, temperature and weight decay learned through theta's steps."""

from __future__ import annotations

import platform
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch
from torch import Tensor, nn

from crossreg import Batches, Callback, CrossRegularizer, EvaluationPlan, Trainer, Unrolled
from crossreg.core import metrics
from crossreg.regularizers.registry import attach

FILE = Path(__file__).with_name("golden.json")
STEPS, INTERVAL = 30, 3

Numbers = dict[str, list[float]]


def machine() -> dict[str, str]:
    """Return what the last bits depend on beside the code."""
    return {
        "torch": torch.__version__,
        "machine": platform.machine(),
        "processor": processor(),
        "instructions": torch.backends.cpu.get_cpu_capability(),
    }


def processor() -> str:
    """Return the model of the processor: its name, which a virtual machine may keep vague, and its numbers."""
    cpuinfo = Path("/proc/cpuinfo")
    lines = cpuinfo.read_text().partition("\n\n")[0].splitlines() if cpuinfo.exists() else []
    told = dict(map(str.strip, line.split(":", 1)) for line in lines if ":" in line)
    return " ".join(told[key] for key in ("model name", "cpu family", "model") if key in told) or platform.processor()


def network() -> nn.Module:
    """Without biases before a normalization: their gradient is rounding alone, as which it would carry on."""
    torch.manual_seed(3)
    return nn.Sequential(
        nn.Linear(8, 16, bias=False),
        nn.BatchNorm1d(16),
        nn.Tanh(),
        nn.Linear(16, 12, bias=False),
        nn.LayerNorm(12),
        nn.Tanh(),
        nn.Linear(12, 3),
    )


def split(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 8, generator=generator)
    return x, (x[:, :3] + 0.5 * torch.randn(rows, 3, generator=generator)).argmax(1)


class Keep(Callback):
    """Keeps losses and hyperparameters in the order in which they are told."""

    def __init__(self) -> None:
        self.numbers: Numbers = {}

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        learned = {metrics.hyperparameter(name) for name in metrics.hyperparameters_in(values)}
        for key, value in values.items():
            if key in learned or key in ("train/loss", "reg/loss", "reg/nll"):
                self.numbers.setdefault(key, []).append(value)


@contextmanager
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def run() -> Numbers:
    """Train, on the CPU in float32 on one thread."""
    keep = Keep()
    with one_thread():
        model = attach(network(), {"noise": 0.3, "temperature": None, "l2": 1e-3})
        train, own, reg = (Batches(*split(rows, of), 16, seed=seed) for rows, of, seed in
                           ((96, 1, 1), (96, 1, 4), (48, 2, 2)))  # fmt: skip
        estimator = Unrolled(own)
        regularizer = CrossRegularizer(model, "classification", reg, INTERVAL, estimator=estimator)
        optimizer = estimator.optimizer = torch.optim.SGD(regularizer.theta, lr=0.1, momentum=0.8)
        Trainer(
            model,
            "classification",
            optimizer,
            train,
            regularizer=regularizer,
            steps=STEPS,
            evaluation=EvaluationPlan(splits={"reg": reg}, every=10),
            log_every=1,
            callbacks=[keep],
        ).fit()
    return keep.numbers
