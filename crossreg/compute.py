"""The compute ledger of a run: what was processed, by phase, in examples, FLOPs and worker-seconds."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode

from crossreg import metrics
from crossreg.direct import direct_gradient
from crossreg.losses import Loss
from crossreg.noise import Draw, noise_layers
from crossreg.rho import rho_parameters, unwrap

__all__ = ["Ledger", "measure_flops"]


@dataclass
class Ledger:
    """Counts what a run processed; every forward pass of an example counts as one example.

    Attributes:
        flops_per_example: floating point operations for one example of a phase: "theta" (forward and backward),
            "rho" (a forward pass of an update and its share of the backward passes) and "forward" (evaluation).
        examples: examples processed by phase, over all ranks.
        worker_seconds: wall-clock seconds times workers.
    """

    flops_per_example: dict[str, float]
    examples: dict[str, int] = field(default_factory=dict)
    worker_seconds: float = 0.0

    def add(self, phase: str, examples: int) -> None:
        """Count examples of a phase."""
        self.examples[phase] = self.examples.get(phase, 0) + examples

    @property
    def flops(self) -> float:
        """Floating point operations so far (2 a multiply-add), over all ranks."""
        return float(sum(self.flops_per_example.get(phase, math.nan) * n for phase, n in self.examples.items()))

    def as_metrics(self) -> dict[str, float]:
        """Return the totals under their metric keys."""
        return {
            metrics.COMPUTE_EXAMPLES: float(sum(self.examples.values())),
            metrics.COMPUTE_FLOPS: self.flops,
            metrics.COMPUTE_WORKER_SECONDS: self.worker_seconds,
        }


def measure_flops(model: nn.Module, loss: Loss, x: Tensor, y: Tensor, samples: int) -> dict[str, float]:
    """Return FLOPs per example of each phase, from torch's counter on one small batch.

    The counter runs on a copy without data (the meta device), so this costs milliseconds, not a training step. It
    counts matrix products, convolutions and attention; a phase it cannot trace is NaN.

    Args:
        model: the model, wrapped or not.
        loss: see `crossreg.losses`.
        x: a batch of inputs; two of its rows are used.
        y: its targets.
        samples: noise draws of a rho step; its 2K - 1 forward and K backward passes are counted together.
    """
    try:
        twin = copy.deepcopy(unwrap(model)).to("meta")
    except (RuntimeError, NotImplementedError):  # weights computed from others cannot be copied
        return dict.fromkeys(("theta", "forward", "rho"), math.nan)
    x, y = x[:2].to("meta"), y[:2].to("meta")

    def theta() -> None:
        twin.train()
        loss(twin(x), y).backward()

    def forward() -> None:
        twin.eval()
        with torch.no_grad():
            twin(x)

    def rho() -> None:
        direct_gradient(twin, loss, x, y, list(rho_parameters(twin).values()), [Draw(0)] * samples)

    phases: dict[str, Callable[[], None]] = {"theta": theta, "forward": forward}
    if noise_layers(twin):
        phases["rho"] = rho
    flops = {name: _count(run) / len(y) for name, run in phases.items()}
    if "rho" in flops:
        flops["rho"] /= 2 * samples - 1
    return flops


def _count(run: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    try:
        with counter:
            run()
    except (NotImplementedError, RuntimeError):  # an operation without a meta kernel
        return math.nan
    return float(counter.get_total_flops())
