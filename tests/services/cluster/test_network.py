"""Nodes that are hosts of their own, in network namespaces, and what happens when a cable is pulled: `make faults`."""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from crossreg.services.cluster import ClusterConfig, LocalCluster
from tests.services.cluster.conftest import running
from tests.services.cluster.faults import note
from tests.services.cluster.running import ARGUMENTS, PATIENT, STEPS, History, Run, assert_same, done_again, said
from tests.waiting import wait_for

pytestmark = [
    pytest.mark.ray,
    pytest.mark.slow,
    pytest.mark.faults,
    pytest.mark.skipif(os.getuid() != 0 or shutil.which("ip") is None, reason="needs root and `ip` (iproute2)"),
]


@pytest.fixture(scope="module")
def cluster() -> Iterator[LocalCluster]:
    """A cluster whose nodes reach each other and the rest through a network."""
    with running(ClusterConfig(nodes=2, cpus=1, isolated=True)) as started:
        yield started


def test_workers_train_in_namespaces_of_their_own(cluster: LocalCluster, straight: History) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS))
    run.wait_for(100)
    workers = [worker for name in cluster.addresses for worker in run.workers(name)]
    namespaces = {Path(f"/proc/{pid}/ns/net").readlink() for pid in ("self", *(worker.pid for worker in workers))}
    assert len(workers) == 2
    assert len(namespaces) == 3
    run.finish()
    assert_same(run.history(), straight)


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_a_cable_is_out_for_five_seconds(node: str, cluster: LocalCluster, straight: History) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), *PATIENT)
    run.wait_for(300)
    before, began = run.step(), time.monotonic()
    cluster.connect(node, False)
    time.sleep(5)
    cluster.connect(node, True)
    run.wait_for(max(before, run.step()))
    seconds = time.monotonic() - began
    log = run.finish()
    assert_same(run.history(), straight)
    note(f"cable of {node} out for 5 s", again=done_again(run, before), seconds=seconds, said=said(log, "changed"))


@pytest.mark.parametrize("node", ["node-1", "node-2"])
def test_a_cable_is_out_until_the_node_is_given_up(node: str, cluster: LocalCluster, straight: History) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), *PATIENT)
    run.wait_for(300)
    before, began = run.step(), time.monotonic()
    cut_off = run.workers(node)
    cluster.connect(node, False)
    time.sleep(90)
    cluster.connect(node, True)
    # Ray has given the node up; it ends by itself once it hears of that, and a supervisor starts it again
    wait_for(lambda: not cluster.processes[node].alive, f"end of {node}, which Ray has given up", every=0.5)
    cluster.start(node)
    run.wait_for(max(before, run.step()))
    seconds = time.monotonic() - began
    log = run.finish()
    assert_same(run.history(), straight)
    assert not any(worker.is_running() and worker.status() != psutil.STATUS_ZOMBIE for worker in cut_off)
    note(f"cable of {node} out for 90 s", again=done_again(run, before), seconds=seconds, said=said(log, "changed"))
