"""A cluster of real processes, one for each file of tests."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from crossreg.errors import UserError
from services.cluster import ClusterConfig, LocalCluster, database


def _missing() -> str | None:
    try:
        database.binaries()
    except UserError as error:
        return str(error)
    return None


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """PostgreSQL, artifact store, MLflow, a Ray head and two nodes of one CPU; this process is a client of theirs."""
    if reason := _missing():
        pytest.skip(reason)
    # Ray's sockets want a short path, and PostgreSQL's account must be able to enter
    folder = Path(tempfile.mkdtemp(prefix="xr", dir="/tmp"))
    folder.chmod(0o755)
    before = dict(os.environ)
    os.environ.pop("RAY_ADDRESS", None)
    try:
        started = LocalCluster.up(folder, ClusterConfig(nodes=2, cpus=1))
        os.environ.update(started.client_environment())
        yield started
    finally:
        os.environ.clear()
        os.environ.update(before)
        if (folder / "cluster.json").exists():
            for process in LocalCluster.at(folder).processes.values():
                process.kill()  # stopping takes Ray and SeaweedFS half a minute
        shutil.rmtree(folder, ignore_errors=True)
