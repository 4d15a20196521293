"""The cluster as its users meet it: jobs from outside, two nodes, one that dies, a model served, nobody let in."""

from __future__ import annotations

import json
import os
import stat
import subprocess
import sys
import urllib.error
import urllib.request
from pathlib import Path

import mlflow
import psutil
import pytest

from crossreg.core.errors import UserError
from crossreg.services.cluster import LocalCluster
from crossreg.services.cluster.submission import Cluster
from crossreg.services.data import DataConfig, load_data
from tests.services.cluster.running import GIVEN, ROOT, Run, assert_same
from tests.services.serving.conftest import Service

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

ARGUMENTS = (*GIVEN, "--steps", "1500", "--workers", "2", "--checkpoint-every", "250")


def crossreg(*arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-m", "crossreg.jobs.cli", *arguments],
        cwd=ROOT,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
        timeout=300,
    )


@pytest.fixture(scope="module")
def straight(cluster: LocalCluster) -> Run:
    """A job that nothing disturbed, submitted and followed as a user does."""
    done = crossreg("submit", "--json", "--", "train", *ARGUMENTS)
    assert done.returncode == 0, done.stderr
    run = Run.__new__(Run)
    run.cluster, run.jobs, run.resumed = cluster, Cluster(cluster.dashboard), None
    run.job = json.loads(done.stdout)["id"]
    return run


def test_a_job_trains_on_two_nodes_and_is_recorded(straight: Run) -> None:
    run = mlflow.MlflowClient().get_run(straight.run_id)
    git = subprocess.run(["git", "rev-parse", "HEAD"], cwd=ROOT, capture_output=True, text=True, timeout=60)
    commit = git.stdout.strip()
    assert run.info.status == "FINISHED"
    assert run.data.tags["git.sha"] == commit
    assert run.data.tags["ray.submission_id"] == straight.job
    assert run.data.tags["crossreg.storage"].startswith("s3://crossreg/runs/")
    assert run.data.metrics["test/accuracy"] > 0.9
    assert f"{straight.cluster.mlflow}/#/experiments/" in straight.log()
    assert mlflow.artifacts.list_artifacts(run_id=straight.run_id)


def test_a_node_that_is_killed_costs_no_metric(straight: Run, cluster: LocalCluster) -> None:
    run = Run(cluster, *ARGUMENTS)
    run.wait_for(400)
    assert {len(run.workers("node-1")), len(run.workers("node-2"))} == {1}
    cluster.kill("node-2")
    cluster.start("node-2")
    assert "training goes on from step" in run.finish()
    assert_same(run.history(), straight.history())


def test_a_stopped_job_writes_a_checkpoint_and_goes_on_where_it_was(straight: Run, cluster: LocalCluster) -> None:
    run = Run(cluster, *ARGUMENTS, "--checkpoint-every", "100000")
    run.wait_for(300)
    done = crossreg("jobs", "stop", run.job, "--json")
    assert done.returncode == 0, done.stderr
    assert json.loads(done.stdout)["status"] == "STOPPED"
    assert "where a checkpoint was written" in run.log()
    assert mlflow.MlflowClient().get_run(run.run_id).info.status == "KILLED"
    assert not run.workers()
    resumed = Run(cluster, "--workers", "2", run_id=run.run_id)
    resumed.finish()
    assert_same(resumed.history(), straight.history())
    listed = {job["id"]: job["status"] for job in Cluster(cluster.dashboard).jobs()}
    assert listed[run.job] == "STOPPED"
    assert listed[resumed.job] == "SUCCEEDED"


def test_its_model_is_promoted_and_served(straight: Run, cluster: LocalCluster, tmp_path: Path) -> None:
    done = crossreg("promote", straight.run_id, "--name", "digits", "--json")
    assert done.returncode == 0, done.stderr
    test = load_data(DataConfig(name="digits")).test
    service = Service(tmp_path, cluster.mlflow, json.loads(done.stdout)["uri"], "--replicas", "1")
    try:
        answers = service.predict(test.x[:100])
    finally:
        service.stop()
    assert answers["version"] == "1"
    right = [answer["label"] == str(label) for answer, label in zip(answers["predictions"], test.y, strict=False)]
    assert sum(right) > 90


def test_jobs_are_refused_without_the_token(cluster: LocalCluster, monkeypatch: pytest.MonkeyPatch) -> None:
    for environment in ({"RAY_AUTH_TOKEN_PATH": ""}, {"RAY_AUTH_TOKEN_PATH": "", "RAY_AUTH_TOKEN": "f" * 32}):
        done = crossreg("submit", "--", "train", *ARGUMENTS, **environment)
        assert done.returncode == 2
        assert "refused" in done.stderr
        assert "Traceback" not in done.stderr
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(f"{cluster.dashboard}/api/jobs/", timeout=20)
    assert refused.value.code == 401


def test_mlflow_is_closed_to_strangers_and_to_other_names(cluster: LocalCluster) -> None:
    address = f"{cluster.mlflow}/api/2.0/mlflow/experiments/search?max_results=1"
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(address, timeout=20)
    assert refused.value.code == 401
    with pytest.raises(urllib.error.HTTPError) as refused:
        urllib.request.urlopen(urllib.request.Request(address, headers={"Host": "evil.example"}), timeout=20)
    assert refused.value.code == 403


def test_secrets_are_private(cluster: LocalCluster) -> None:
    secrets = json.loads((cluster.folder / "secrets.json").read_text())
    for name in ("secrets.json", "ray-token", "mlflow-auth.ini", "artifacts/accounts.json"):
        assert stat.S_IMODE((cluster.folder / name).stat().st_mode) == 0o600, name
    commands = " ".join(" ".join(process.cmdline()) for process in psutil.process_iter() if process.pid != os.getpid())
    logs = "".join(path.read_text(errors="replace") for path in (cluster.folder / "logs").glob("*.log"))
    state = (cluster.folder / "cluster.json").read_text()
    for name, secret in secrets.items():
        assert secret not in commands + logs + state, name


def test_what_should_listen_on_loopback_does(cluster: LocalCluster) -> None:
    ours = {port for ports in cluster.ports.values() for port in ports.values()}
    listening = [link.laddr for link in psutil.net_connections("tcp") if link.status == psutil.CONN_LISTEN]
    outside = {address.port for address in listening if not address.ip.startswith("127.")} & ours
    # Ray's own control ports bind all interfaces; SECURITY.md says so
    head, nodes = cluster.ports["ray-head"], [cluster.ports[name] for name in ("node-1", "node-2")]
    assert outside <= {
        head["gcs"],
        head["client"],
        *(port for node in (head, *nodes) for port in (node["metrics"], node["agent"])),
    }


def test_a_job_that_cannot_be(cluster: LocalCluster) -> None:
    for command, words in (
        (("submit", "--", "trian"), "did you mean 'train'"),
        (("submit", "--address", "http://127.0.0.1:1", "--", "train"), "no Ray cluster answers"),
        (("jobs", "logs", "nosuch"), "crossreg jobs list"),
        (("jobs", "stop", "nosuch"), "crossreg jobs list"),
    ):
        done = crossreg(*command)
        assert done.returncode == 2
        assert words in done.stderr
        assert "Traceback" not in done.stderr


def test_another_cluster_is_not_started_in_its_folder(cluster: LocalCluster) -> None:
    from crossreg.services.cluster import ClusterConfig

    with pytest.raises(UserError, match="give the same, or another folder"):
        LocalCluster.up(cluster.folder, ClusterConfig(nodes=5))
