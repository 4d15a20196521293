"""A training on a cluster, watched from outside: how far it is, what it said, what it left in MLflow."""

from __future__ import annotations

import json
import re
import time
from pathlib import Path
from typing import Any

import mlflow
import psutil

from crossreg.services.cluster import LocalCluster
from crossreg.services.cluster.submission import ENDED, Cluster
from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[3]

STEPS, EVERY = 1600, 200
"""Of the training that is disturbed, and from one checkpoint to the next."""
GIVEN = ("--data", "digits", "--model", "mlp", "--schedule", "cosine")
"""A training whose length is given."""
ARGUMENTS = (*GIVEN, "--workers", "2", "--checkpoint-every", str(EVERY))
PATIENT = ("--max-failures", "1000", "--hang-timeout", "20")

History = dict[str, list[tuple[int, float]]]
"""(step, value) of every point, by metric."""

# of no consequence to what is learned, and of the machine rather than of the training
_BESIDE = ("system/", "usage/examples_per_second", "usage/worker_seconds", "usage/peak_memory")


class Run:
    """A submitted `train` job; the run that it makes or goes on with."""

    def __init__(self, cluster: LocalCluster, *arguments: str, run_id: str | None = None) -> None:
        self.cluster, self.jobs = cluster, Cluster(cluster.dashboard)
        self.resumed = run_id
        resume = () if run_id is None else ("--resume", run_id)
        self.job = self.jobs.submit(["train", *arguments, *resume], ROOT)

    def log(self) -> str:
        return self.jobs.logs(self.job)

    def status(self) -> str:
        status: str = self.jobs.job(self.job)["status"]
        return status

    @property
    def run_id(self) -> str:
        """The MLflow run; waits until there is one."""
        if self.resumed is None:
            self.resumed = wait_for(self._named, "MLflow run of the job", every=0.2, said=self.log)
        return self.resumed

    def _named(self) -> str | None:
        ended = self.status() in ENDED
        found = re.search(r"runs/([0-9a-f]{32})", self.log())
        assert found or not ended, f"the job ended before it had a run: {self.log()[-3000:]}"
        return found and found[1]

    @property
    def folder(self) -> Path:
        """Where the driver keeps what is on its way to MLflow."""
        run_id = self.run_id  # once it is known, the folder is there
        for record in self.cluster.folder.glob("state/crossreg/runs/*/tracking/run.json"):
            if json.loads(record.read_text())["run_id"] == run_id:
                return record.parents[1]
        raise AssertionError(f"no folder of run {run_id}: {self.log()[-3000:]}")

    def records(self) -> list[dict[str, Any]]:
        lines = (self.folder / "tracking" / "spool.jsonl").read_text().splitlines()
        return [json.loads(line) for line in lines if line.endswith("}")]

    def step(self) -> int:
        """The last step whose metrics are on disk."""
        return max([0, *(record["step"] for record in self.records() if "train/loss" in str(record))])

    def wait_for(self, step: int, timeout: float = 300) -> float:
        """Wait until training is past a step; return the seconds that took."""
        began = time.monotonic()

        def past() -> bool:
            over = self.status() in ENDED
            there = self.step() > step
            assert there or not over, f"the job ended at step {self.step()}: {self.log()[-4000:]}"
            return there

        wait_for(past, f"step after {step}", timeout, every=0.1, said=self.log)
        return time.monotonic() - began

    def finish(self, expected: str = "SUCCEEDED", timeout: float = 420) -> str:
        """Wait for the job's end and return its log."""
        wait_for(lambda: self.status() in ENDED, "end of the job", timeout, every=0.3, said=self.log)
        log = self.log()
        assert self.status() == expected, f"{self.status()}: {log[-4000:]}"
        return log

    def workers(self, node: str | None = None) -> list[psutil.Process]:
        """The processes that train, on one node or on all."""
        names = [node] if node else [name for name in self.cluster.processes if name.startswith("node-")]
        return [process for name in names for process in self._descendants(name, "RayTrainWorker")]

    def _descendants(self, part: str, word: str) -> list[psutil.Process]:
        """The processes that a part of the cluster has started, with a word in their command line."""
        found = []
        for process in psutil.Process(self.cluster.processes[part].pid).children(recursive=True):
            try:
                if word in " ".join(process.cmdline()):
                    found.append(process)
            except psutil.Error:
                continue
        return found

    def kill(self) -> None:
        """Kill the job's driver, without a warning."""
        drivers = self._descendants("ray-head", "crossreg.jobs.train")
        assert drivers
        for process in drivers:
            process.kill()
        psutil.wait_procs(drivers, timeout=30)

    def history(self) -> History:
        """What MLflow holds."""
        client = mlflow.MlflowClient()
        run = client.get_run(self.run_id)
        assert run.info.status == "FINISHED"
        return {
            key: sorted((point.step, point.value) for point in client.get_metric_history(self.run_id, key))
            for key in run.data.metrics
            if not key.startswith(_BESIDE)
        }


def assert_complete(history: History, reference: History) -> None:
    """Every point of the undisturbed run is there, once."""
    assert history.keys() == reference.keys()
    for key, points in reference.items():
        assert [step for step, _ in history[key]] == [step for step, _ in points], key


def assert_same(history: History, reference: History) -> None:
    """Every point of the undisturbed run is there, once, and with the same value."""
    assert_complete(history, reference)
    for key, points in reference.items():
        assert history[key] == points, key


def said(log: str, *words: str) -> str:
    """Return the last line of a log that has one of the words."""
    lines = [line for line in log.splitlines() if any(word in line for word in words)]
    return lines[-1].strip() if lines else ""


def done_again(run: Run, before: int) -> int:
    """Return the steps that were trained twice after a fault at step `before`."""
    tags = mlflow.MlflowClient().get_run(run.run_id).data.tags
    starts = [int(text.rpartition(" ")[2]) for key, text in tags.items() if key.startswith("recovered.")]
    return sum(max(0, before - start) for start in starts[:1])
