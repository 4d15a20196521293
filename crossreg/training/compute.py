"""The compute ledger of a run: what was processed, by phase, in examples, FLOPs and worker-seconds."""

from __future__ import annotations

import copy
import math
import sys
from collections.abc import Callable, Collection, Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from typing import Any, Self

import torch
from torch import Tensor, nn
from torch.backends import mha
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode
from torch.utils.module_tracker import ModuleTracker

from crossreg.core import metrics
from crossreg.core.modules import train_mode, unwrap
from crossreg.estimators import Direct, Estimator
from crossreg.losses import Loss
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.penalties import training_loss

__all__ = ["REPORT", "Cost", "Ledger", "measure_flops"]


REPORT = "report"
"""The phase of evaluations that nothing depends on: counted, and left out of what a run is said to have cost."""

SMALL = (2**22, 2**13)
"""Parameters and numbers in the counted rows up to which a model's FLOPs are counted by computing, not by tracing."""

_COUNTED_AS = {"selection": "forward", REPORT: "forward"}


@dataclass(frozen=True)
class Cost:
    """What something cost; costs add up.

    Attributes:
        examples: forward passes of an example.
        backward_examples: backward passes of an example.
        flops: floating point operations (2 a multiply-add).
        worker_seconds: wall-clock seconds times workers.
    """

    examples: float = 0.0
    backward_examples: float = 0.0
    flops: float = 0.0
    worker_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return self._combined(other, 1)

    def __sub__(self, other: Cost) -> Cost:
        return self._combined(other, -1)

    def __mul__(self, factor: float) -> Cost:
        return Cost(**{name: factor * value for name, value in asdict(self).items()})

    def _combined(self, other: Cost, sign: int) -> Cost:
        mine, others = asdict(self), asdict(other)
        return Cost(**{name: mine[name] + sign * others[name] for name in mine})

    def as_metrics(self) -> dict[str, float]:
        """Return it under its metric keys."""
        return {metrics.compute(name): value for name, value in asdict(self).items()}


@dataclass
class Ledger:
    """Counts what a run processed; every forward pass of an example counts as one example.

    Phases are "theta" (training steps), "rho" (updates of rho), "selection" (evaluations that a choice depends on)
    and "report" (evaluations for the reader alone, which are in no total).

    Attributes:
        flops_per_example: floating point operations for one forward pass of an example: "theta" (with its backward
            pass), "rho" (with its share of the backward passes) and "forward" (evaluation).
        examples: forward passes by phase, over all ranks.
        backward: backward passes by phase, over all ranks.
        worker_seconds: wall-clock seconds times workers, without the time of reports.
        seconds: the same without the factor: as long as the run took, on however many workers.
        peak_memory_bytes: largest memory of this process so far (rank 0's), or of its GPU.
    """

    flops_per_example: dict[str, float]
    examples: dict[str, int] = field(default_factory=dict)
    backward: dict[str, int] = field(default_factory=dict)
    worker_seconds: float = 0.0
    seconds: float = 0.0
    peak_memory_bytes: int = 0

    def add(self, phase: str, examples: int, backward: int = 0) -> None:
        """Count forward and backward passes of a phase."""
        self.examples[phase] = self.examples.get(phase, 0) + examples
        if backward:
            self.backward[phase] = self.backward.get(phase, 0) + backward

    @property
    def cost(self) -> Cost:
        """What the run cost so far, over all ranks."""
        counted = [(phase, n) for phase, n in self.examples.items() if phase != REPORT]
        return Cost(
            examples=float(sum(n for _, n in counted)),
            backward_examples=float(sum(self.backward.values())),
            flops=float(sum(self.flops_per_example.get(_COUNTED_AS.get(p, p), math.nan) * n for p, n in counted)),
            worker_seconds=self.worker_seconds,
        )

    def as_metrics(self) -> dict[str, float]:
        """Return the totals under their metric keys."""
        return {**self.cost.as_metrics(), metrics.COMPUTE_PEAK_MEMORY: float(self.peak_memory_bytes)}

    def measure_memory(self, device: torch.device) -> None:
        """Note the peak memory so far."""
        if device.type == "cuda":
            peak = torch.cuda.max_memory_allocated(device)
        else:
            import resource

            # kilobytes on Linux, bytes on macOS
            peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
        self.peak_memory_bytes = max(self.peak_memory_bytes, peak)


def measure_flops(
    model: nn.Module,
    loss: Loss,
    x: Tensor,
    y: Tensor,
    samples: int,
    estimator: Estimator | None = None,
    rho: Collection[str] | None = None,
) -> dict[str, float]:
    """Return FLOPs per example of each phase, from torch's counter on one small batch.

    The counter runs on a copy: of a small model on the CPU, of a larger one without data (the meta device, whose
    operations are Python: of no size, and slower than computing a little). It counts matrix products, convolutions and
    attention; a phase it cannot trace is NaN.

    Args:
        model: the model, wrapped or not.
        loss: see `crossreg.losses`.
        x: a batch of inputs; two of its rows are used, of an ensemble two a member.
        y: its targets.
        samples: noise draws of a rho step.
        estimator: of the rho step, whose passes are counted together and shared out among the forward ones.
        rho: names of the parameters that it learns, of which there may be none; None takes all rho of the model.
    """
    inner, estimator = unwrap(model), estimator or Direct()
    rho = list(rho_parameters(inner)) if rho is None else rho
    rows = 2 * getattr(inner, "shares", 1)
    x, y = x[:rows], y[:rows]
    small = sum(p.numel() for p in inner.parameters()) <= SMALL[0] and x.numel() <= SMALL[1]

    def on(device: str) -> dict[str, float]:
        twin = copy.deepcopy(inner).to(device)
        with _unfused(), torch.random.fork_rng(devices=[]):  # what is drawn in counting moves no stream of the training
            return _phases(twin, loss, x.to(device), y.to(device), samples, estimator, rho)

    try:
        flops = on("cpu" if small else "meta")
        # not every second derivative is traced
        if not small and estimator.needs_training_data and math.isnan(flops.get("rho", 0.0)):
            flops["rho"] = on("cpu")["rho"]
    except (RuntimeError, NotImplementedError):  # weights computed from others cannot be copied
        return dict.fromkeys(("theta", "forward", "rho"), math.nan)
    return flops


@contextmanager
def _unfused() -> Iterator[None]:
    """Switch off the CPU's kernels of a whole LSTM, encoder layer or attention, which torch's counter does not know."""
    fastpath = mha.get_fastpath_enabled()
    mkldnn, *_ = torch.backends.mkldnn.set_flags(False, _fp32_precision=None)
    mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        mha.set_fastpath_enabled(fastpath)
        torch.backends.mkldnn.set_flags(mkldnn, _fp32_precision=None)


def _phases(
    twin: nn.Module, loss: Loss, x: Tensor, y: Tensor, samples: int, estimator: Estimator, rho: Collection[str]
) -> dict[str, float]:
    """Run each phase under the counter, on a model that may be spoiled."""

    def theta() -> None:
        train_mode(twin)
        training_loss(twin, loss, twin(x), y).backward()

    def forward() -> None:
        twin.eval()
        with torch.no_grad():
            twin(x)

    def update() -> None:
        parameters = [parameter for name, parameter in rho_parameters(twin).items() if name in rho]
        estimator.on(x, y).gradient(twin, loss, x, y, parameters, [Draw(0)] * samples)

    phases: dict[str, Callable[[], None]] = {"theta": theta, "forward": forward}
    if rho:
        phases["rho"] = update
    flops = {name: _count(run) / len(y) for name, run in phases.items()}
    if "rho" in flops:
        flops["rho"] /= estimator.passes(samples)[0]
    return flops


class _NoModules(ModuleTracker):
    """Follows no module: only the total counts, and its hooks break `autograd.grad` by what a module is given."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *args: object) -> None:
        pass


def _count(run: Callable[[], Any]) -> float:
    counter = FlopCounterMode(display=False)
    counter.mod_tracker = _NoModules()
    try:
        with counter:
            run()
    except (NotImplementedError, RuntimeError):  # an operation without a meta kernel
        return math.nan
    return float(counter.get_total_flops())
