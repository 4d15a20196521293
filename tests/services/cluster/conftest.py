"""A cluster of real processes, one for each file of tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from crossreg.core.errors import UserError
from crossreg.services.cluster import ClusterConfig, LocalCluster, database
from tests.services.cluster.running import ARGUMENTS, STEPS, History, Run


@contextmanager
def running(config: ClusterConfig) -> Iterator[LocalCluster]:
    """PostgreSQL, artifact store, MLflow, a Ray head and nodes; this process is a client of theirs."""
    try:
        database.binaries()
    except UserError as error:
        pytest.skip(str(error))
    # Ray's sockets want a short path, and PostgreSQL's account must be able to enter
    folder = Path(tempfile.mkdtemp(prefix="xr", dir="/tmp"))
    folder.chmod(0o755)
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    try:
        started = LocalCluster.up(folder, config)
        os.environ.update(started.client_environment())
        yield started
    finally:
        os.environ.clear()
        os.environ.update(before)
        if (folder / "cluster.json").exists():
            left = LocalCluster.at(folder)
            for process in left.processes.values():
                process.kill()  # stopping takes Ray and SeaweedFS half a minute
            left.down()
        shutil.rmtree(folder, ignore_errors=True)


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster with two nodes of one CPU, all on loopback."""
    with running(ClusterConfig(nodes=2, cpus=1)) as started:
        yield started


@pytest.fixture(scope="module")
def straight(cluster: LocalCluster) -> History:
    """What a run records that nothing disturbs."""
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS))
    run.finish()
    return run.history()
