"""Ray metrics of a training, which Ray's agents show to Prometheus; see `docs/observability.md`.

The driver sets them, from what rank 0 sends it anyway: all ranks agree on everything here, training pays nothing,
and the last values of a short run are exported too, since the driver outlives its workers.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from statistics import median
from typing import Any

from crossreg.core.metrics import hyperparameters_in
from crossreg.services.training.messages import Progress

__all__ = ["Telemetry"]

_log = logging.getLogger(__name__)

# Gauges alone: Ray forgets one that is no longer set, but shows counters and histograms of ended runs for ever, and
# rebuilds a histogram's sum from the middles of its buckets.
_GAUGES = {
    "step": "Theta steps done.",
    "num_steps": "Theta steps of the whole run.",
    "examples_per_second": "Training examples per second over all workers, in the last ten seconds.",
    "train_loss": "Loss on the training split, mean since the value before.",
    "reg_loss": "Loss on the batch of the last rho step.",
    "sigma_min": "Smallest noise scale of a layer.",
    "sigma_median": "Median noise scale of the layers.",
    "sigma_max": "Largest noise scale of a layer.",
    "rho_updates": "Rho steps done.",
    "rho_update_seconds": "Seconds of a rho step on rank 0, mean over those in the last ten seconds.",
    "checkpoints": "Checkpoints reported since the driver started.",
    "checkpoint_step": "Theta steps done at the last checkpoint.",
    "recoveries": "Times training went on after the workers changed.",
}
_EXPORT_SECONDS = 1.0
_WINDOW_SECONDS = 10.0


class Telemetry:
    """The metrics of one run, `crossreg_...`, labelled with `run_id` and `method`. Never raises.

    Args:
        run_id: MLflow run.
        method: of the configuration.
        exported: there is a Ray to export them.
    """

    def __init__(self, run_id: str, method: str, exported: bool = True) -> None:
        self._tags = {"run_id": run_id, "method": method}
        self._values: dict[str, float] = {}
        self._gauges: dict[str, Any] = {}
        self._work: dict[str, float] = {}  # counted since the workers started: examples, rho_updates, rho_seconds
        self._window: deque[tuple[float, dict[str, float]]] = deque()
        self._exported = 0.0
        self._failed = not exported

    def start(self, step: int, num_steps: int, recoveries: int) -> None:
        """Take note that training starts, or goes on after the workers changed."""
        self._values |= {"step": step, "num_steps": num_steps, "recoveries": recoveries}
        self._values.setdefault("checkpoints", 0)
        self._work = {}
        self._window.clear()

    def metrics(self, step: int, values: dict[str, float]) -> None:
        """Take note of a step's metrics, under the keys of `crossreg.core.metrics`."""
        self._values["step"] = step
        for name in ("train", "reg"):
            if f"{name}/loss" in values:
                self._values[f"{name}_loss"] = values[f"{name}/loss"]
        found = hyperparameters_in(values)
        if sigma := [value for name, value in found.items() if name.partition("/")[0] == "noise"]:
            self._values |= {"sigma_min": min(sigma), "sigma_median": median(sigma), "sigma_max": max(sigma)}

    def progress(self, work: Progress) -> None:
        """Take note of work done."""
        self._values |= {"step": work.step, "rho_updates": work.rho_updates}
        self._work = {key: getattr(work, key) for key in ("examples", "rho_updates", "rho_seconds")}

    def checkpoint(self, step: int) -> None:
        """Take note of a checkpoint."""
        self._values |= {"checkpoints": self._values["checkpoints"] + 1, "checkpoint_step": step}

    def export(self, last: bool = False) -> None:
        """Set all gauges, at most once a second; they must be set again and again, or Ray forgets them.

        Args:
            last: set them though a second has not passed.
        """
        now = time.monotonic()
        if self._failed or (now - self._exported < _EXPORT_SECONDS and not last):
            return
        self._exported = now
        try:
            self._measure(now)
            for name, value in self._values.items():
                self._gauge(name).set(value)
        except Exception as error:  # training is worth more than its metrics
            self._failed = True
            _log.warning("the run has no Ray metrics from here on: %s", error)

    def _measure(self, now: float) -> None:
        """Compare with the work of ten seconds ago, by this clock: where nothing arrives, throughput falls to zero."""
        if not self._work:
            return
        self._window.append((now, self._work))
        while now - self._window[0][0] > _WINDOW_SECONDS and len(self._window) > 2:
            self._window.popleft()
        then, before = self._window[0]
        if now > then:
            done = {key: self._work[key] - before[key] for key in before}
            self._values["examples_per_second"] = done["examples"] / (now - then)
            if done["rho_updates"]:
                self._values["rho_update_seconds"] = done["rho_seconds"] / done["rho_updates"]

    def _gauge(self, name: str) -> Any:
        if name not in self._gauges:
            from ray.util.metrics import Gauge

            gauge = Gauge(f"crossreg_{name}", _GAUGES[name], tag_keys=tuple(self._tags))
            self._gauges[name] = gauge.set_default_tags(self._tags)
        return self._gauges[name]
