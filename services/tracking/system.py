"""System metrics of the driver's machine, named so that the UI's System metrics tab shows them."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

from crossreg.services.tracking.spool import DiskError

__all__ = ["PREFIX", "SystemSampler"]

PREFIX = "system/"
_log = logging.getLogger(__name__)


class SystemSampler:
    """Samples CPU, memory, disk, network and, where `nvidia-ml-py` sees one, GPU in a daemon thread.

    MLflow's monitor classes measure; its own thread is not used because it writes to the store directly.

    Args:
        record: called with the metrics and their step.
        first_step: the first sample's step: the step counts samples, as MLflow's does, across resumes.
        interval: seconds between samples.
    """

    def __init__(
        self, record: Callable[[dict[str, float], int], None], first_step: int = 0, interval: float = 10.0
    ) -> None:
        self._record, self._step, self._interval = record, first_step, interval
        self._stopping = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crossreg-system-metrics", daemon=True)

    def start(self) -> None:
        """Start sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Stop; at most one sample is under way."""
        self._stopping.set()
        self._thread.join(timeout=5)

    def _run(self) -> None:
        try:
            monitors = _monitors()
            # psutil's first CPU reading is 0: it measures since the call before.
            _sample(monitors)
            while not self._stopping.wait(self._interval):
                with suppress(DiskError):  # the next sample may find room again
                    self._record(_sample(monitors), self._step)
                    self._step += 1
        except Exception as error:
            _log.warning("system metrics stopped: %s", error)


def _monitors() -> list[Any]:
    from mlflow.system_metrics.metrics.cpu_monitor import CPUMonitor
    from mlflow.system_metrics.metrics.disk_monitor import DiskMonitor
    from mlflow.system_metrics.metrics.gpu_monitor import GPUMonitor
    from mlflow.system_metrics.metrics.network_monitor import NetworkMonitor
    from mlflow.system_metrics.metrics.rocm_monitor import ROCMMonitor

    monitors: list[Any] = [CPUMonitor(), DiskMonitor(), NetworkMonitor()]
    for gpu in (GPUMonitor, ROCMMonitor):
        try:
            monitors.append(gpu())
            break
        except Exception as error:
            _log.debug("no %s: %s", gpu.__name__, error)
    return monitors


def _sample(monitors: list[Any]) -> dict[str, float]:
    metrics: dict[str, float] = {}
    for monitor in monitors:
        monitor.collect_metrics()
        metrics |= {PREFIX + name: value for name, value in monitor.aggregate_metrics().items()}
        monitor.clear_metrics()
    return metrics
