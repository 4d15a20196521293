"""What can go wrong with a cluster, done to its real processes."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Callable
from pathlib import Path

from crossreg.services.cluster import LocalCluster
from tests.services.cluster.running import Run

__all__ = ["PASSING", "note"]


def worker_killed(cluster: LocalCluster, run: Run) -> None:
    run.workers()[0].send_signal(signal.SIGKILL)


def node_killed(cluster: LocalCluster, run: Run) -> None:
    cluster.kill("node-2")
    cluster.start("node-2")


def worker_hangs(cluster: LocalCluster, run: Run) -> None:
    run.workers()[0].send_signal(signal.SIGSTOP)


def mlflow_away(cluster: LocalCluster, run: Run, seconds: float = 60) -> None:
    cluster.kill("mlflow")
    time.sleep(seconds)
    cluster.start("mlflow")


def mlflow_killed(cluster: LocalCluster, run: Run) -> None:
    mlflow_away(cluster, run, 0)


def database_restarted(cluster: LocalCluster, run: Run) -> None:
    cluster.processes["postgres"].stop()
    cluster.start("postgres")


def database_killed(cluster: LocalCluster, run: Run) -> None:
    cluster.kill("postgres")
    cluster.start("postgres")


def storage_away(cluster: LocalCluster, run: Run) -> None:
    cluster.kill("artifact-store")
    cluster.start("artifact-store")


PASSING: dict[str, Callable[[LocalCluster, Run], None]] = {
    "SIGKILL of a worker": worker_killed,
    "SIGKILL of a node, another joins": node_killed,
    "a worker hangs (SIGSTOP)": worker_hangs,
    "MLflow killed, back after a minute": mlflow_away,
    "MLflow killed and started": mlflow_killed,
    "PostgreSQL restarted": database_restarted,
    "PostgreSQL killed and started": database_killed,
    "artifact store killed and started": storage_away,
}
"""Faults that a run outlives by itself."""


def note(fault: str, **found: object) -> None:
    """Keep a line of the table."""
    if path := os.environ.get("CROSSREG_FAULTS"):
        with Path(path).open("a") as out:
            out.write(json.dumps({"fault": fault, **found}) + "\n")
