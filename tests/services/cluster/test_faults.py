"""Every fault of `docs/operations.md`, done to a training on a real cluster: `make faults`.

With `CROSSREG_FAULTS` a file gets a line for every fault: what was done again, how long it took, what was said.
"""

from __future__ import annotations

import os
import random
import time
from pathlib import Path

import mlflow
import pytest

from crossreg.services.cluster import LocalCluster
from tests.services.cluster.faults import PASSING, note
from tests.services.cluster.running import (
    ARGUMENTS,
    EVERY,
    GIVEN,
    PATIENT,
    STEPS,
    History,
    Run,
    assert_same,
    done_again,
    said,
)
from tests.services.disk import Disk
from tests.waiting import wait_for

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]


@pytest.mark.parametrize("fault", PASSING)
def test_a_run_outlives(fault: str, cluster: LocalCluster, straight: History) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), *PATIENT)
    run.wait_for(300)
    before, began = run.step(), time.monotonic()
    PASSING[fault](cluster, run)
    run.wait_for(min(max(before, run.step()), STEPS - 1))
    seconds = time.monotonic() - began
    log = run.finish()
    assert_same(run.history(), straight)
    note(fault, again=done_again(run, before), seconds=seconds, said=said(log, "workers changed", "goes on"))


def resumed(run: Run, *arguments: str) -> tuple[Run, float]:
    """Go on with a run in a new job; return it and the seconds until it was further than before."""
    before, began = run.step(), time.monotonic()
    again = Run(run.cluster, "--workers", "2", *arguments, run_id=run.run_id)
    again.wait_for(before)
    return again, time.monotonic() - began


def test_the_head_is_killed(cluster: LocalCluster, straight: History) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS))
    run.wait_for(300)
    run_id, before = run.run_id, run.step()
    for name in ("ray-head", "node-1", "node-2"):
        cluster.kill(name)
    for name in ("ray-head", "node-1", "node-2"):
        cluster.start(name)
    lost = Run.__new__(Run)
    lost.cluster, lost.resumed = cluster, run_id
    again, seconds = resumed(lost)
    log = again.finish()
    assert_same(again.history(), straight)
    note("SIGKILL of the head and its job", again=before % EVERY, seconds=seconds, said=said(log, "run:"))


def test_sigterm(cluster: LocalCluster, straight: History) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS))
    run.wait_for(300)
    began = time.monotonic()
    run.jobs.stop(run.job)
    log = run.finish("STOPPED")
    stopping = time.monotonic() - began
    again, seconds = resumed(run)
    again.finish()
    assert_same(again.history(), straight)
    note("SIGTERM, then --resume", again=0, seconds=stopping + seconds, said=said(log, "stopped after"))


def test_fewer_workers_go_on_and_more_join(cluster: LocalCluster) -> None:
    run = Run(cluster, *ARGUMENTS, "--steps", str(2 * STEPS), "--min-workers", "1", *PATIENT)
    run.wait_for(300)
    before, began = run.step(), time.monotonic()
    cluster.kill("node-2")
    run.wait_for(max(before, run.step()))
    seconds = time.monotonic() - began
    assert "on 1 worker" in run.log()
    cluster.start("node-2")
    log = run.finish()
    steps = [step for step, _ in run.history()["train/loss"]]
    assert steps == sorted(set(steps))
    assert steps[-1] == 2 * STEPS
    note(
        "SIGKILL of a node, --min-workers 1",
        again=done_again(run, before),
        seconds=seconds,
        said=said(log, "on 1 worker"),
    )


def wait_for_checkpoints(storage: Path, count: int, run: Run) -> None:
    """Wait until so many checkpoints of a run lie in a folder."""
    wait_for(
        lambda: len(list(storage.glob("*/checkpoint_*/checkpoint.pt"))) >= count,
        f"{count} checkpoints in {storage}", 240, every=0.1, said=run.log,
    )  # fmt: skip


STORAGE_FAULTS = {
    "full": (Disk.full, Disk.empty, "No space left"),
    "read-only": (Disk.read_only, Disk.repaired, "Read-only"),
}


@pytest.mark.parametrize("fault", STORAGE_FAULTS)
def test_storage_that_takes_nothing_more(fault: str, cluster: LocalCluster, straight: History) -> None:
    happens, ends, word = STORAGE_FAULTS[fault]
    disk = Disk(cluster.folder / f"storage-{fault}")
    with disk as folder:
        arguments = ("--storage-path", str(folder), "--max-failures", "1", "--hang-timeout", "20")
        run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), *arguments)
        # the driver's record of the run goes with its checkpoints, so it lies on that disk too
        wait_for_checkpoints(folder, 1, run)
        happens(disk)
        log = run.finish("FAILED")
        run_id = run.run_id
        message = said(log, "error:")
        assert word in message, log[-4000:]
        assert f"--resume {run_id}" in message
        assert mlflow.MlflowClient().get_run(run_id).info.status == "FAILED"
        too_soon = Run(cluster, "--workers", "2", run_id=run_id).finish("FAILED")
        assert str(folder) in said(too_soon, "error:"), too_soon[-4000:]
        ends(disk)
        began = time.monotonic()
        again = Run(cluster, "--workers", "2", run_id=run_id)
        again.finish()
        assert_same(again.history(), straight)
        seconds = time.monotonic() - began
        note(f"storage {fault}, mended, --resume", again="up to a checkpoint", seconds=seconds, said=message)


def test_the_drivers_disk_is_full_for_a_while(cluster: LocalCluster, straight: History) -> None:
    disk = Disk(cluster.folder / "state")
    with disk:
        run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS))
        run.wait_for(300)
        disk.full()
        time.sleep(30)
        stands = run.step()
        assert stands < STEPS, "training did not wait for the disk"
        disk.empty()
        began = time.monotonic()
        run.wait_for(stands)
        seconds = time.monotonic() - began
        log = run.finish()
        assert_same(run.history(), straight)
        message = said(log, "training waits for room")
        assert "No space left" in message, log[-4000:]
        note("the driver's disk full for 30 s", again=0, seconds=seconds, said=message)


@pytest.mark.parametrize("damage", ["truncated", "corrupted", "of an older version"])
def test_a_damaged_checkpoint(damage: str, cluster: LocalCluster, straight: History, tmp_path: Path) -> None:
    import torch

    storage = cluster.folder / "kept" / damage.split()[-1]
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), "--storage-path", str(storage))
    wait_for_checkpoints(storage, 2, run)
    run.jobs.stop(run.job)
    run.finish("STOPPED")
    latest = sorted(storage.glob("*/checkpoint_*/checkpoint.pt"))[-1]
    content = latest.read_bytes()
    if damage == "truncated":
        latest.write_bytes(content[: len(content) // 2])
    elif damage == "corrupted":
        middle = len(content) // 2
        latest.write_bytes(content[:middle] + bytes(512) + content[middle + 512 :])
    else:
        old = torch.load(latest, weights_only=True)
        torch.save({**old, "format": 0}, latest)
    began = time.monotonic()
    again = Run(cluster, "--workers", "2", run_id=run.run_id)
    log = again.finish()
    assert_same(again.history(), straight)
    message = said(log, "is used instead")
    assert message
    note(f"last checkpoint {damage}", again=EVERY, seconds=time.monotonic() - began, said=message)


def test_a_torn_list_of_checkpoints(cluster: LocalCluster, straight: History) -> None:
    """Ray Train writes it in place: a disk that is full at that moment, or a machine that goes down, leaves half."""
    storage = cluster.folder / "kept" / "torn"
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), "--storage-path", str(storage))
    wait_for_checkpoints(storage, 2, run)
    run.jobs.stop(run.job)
    run.finish("STOPPED")
    (account,) = storage.glob("*/checkpoint_manager_snapshot.json")
    account.write_bytes(account.read_bytes()[:100])
    began = time.monotonic()
    again = Run(cluster, "--workers", "2", run_id=run.run_id)
    log = again.finish()
    assert_same(again.history(), straight)
    message = said(log, "is torn")
    assert "training goes on from the last checkpoint beside it" in message
    assert mlflow.MlflowClient().get_run(run.run_id).data.tags["note.1"] in message
    note("Ray Train's list of checkpoints torn", again=0, seconds=time.monotonic() - began, said=message)


def test_two_jobs_write_to_one_experiment(cluster: LocalCluster) -> None:
    arguments = (*GIVEN, "--steps", "600", "--experiment", "shared")
    runs = [Run(cluster, *arguments, "--seed", str(seed)) for seed in range(2)]
    for run in runs:
        run.finish()
    histories = [run.history() for run in runs]
    assert runs[0].run_id != runs[1].run_id
    assert [step for step, _ in histories[0]["train/loss"]] == [step for step, _ in histories[1]["train/loss"]]
    ids = {mlflow.MlflowClient().get_run(run.run_id).info.experiment_id for run in runs}
    assert len(ids) == 1
    note("two jobs, one experiment", again=0, seconds=0.0, said="")


def test_data_that_go_away(cluster: LocalCluster, tmp_path: Path) -> None:
    import numpy as np
    from sklearn.datasets import load_digits

    x, y = load_digits(return_X_y=True)
    path = cluster.folder / "digits.npz"
    np.savez(path, x=x.astype("float32"), y=y)
    arguments = ("--data", str(path), "--model", "mlp", "--schedule", "cosine", "--steps", str(STEPS), "--workers", "2")
    run = Run(cluster, *arguments)
    run.wait_for(300)
    path.unlink()
    run.jobs.stop(run.job)
    run.finish("STOPPED")
    again = Run(cluster, "--workers", "2", run_id=run.run_id)
    log = again.finish("FAILED")
    message = said(log, "error:")
    assert str(path) in message
    assert "Traceback" not in log
    np.savez(path, x=x.astype("float32"), y=y)
    again, seconds = resumed(run)
    again.finish()
    note("data removed, put back, --resume", again=0, seconds=seconds, said=message)


def test_loss_that_is_no_number(cluster: LocalCluster) -> None:
    run = Run(cluster, *GIVEN, "--steps", "300", "--lr", "1e30", "--optimizer", "sgd")
    message = said(run.finish("FAILED"), "error:")
    assert "training diverged: its loss is not a number from step 2 on; give a smaller --lr" in message
    assert mlflow.MlflowClient().get_run(run.run_id).info.status == "FAILED"
    note("NaN loss", again=0, seconds=0.0, said=message)


def test_many_faults_in_one_run(cluster: LocalCluster) -> None:
    """Thirty faults at random, and the record is that of a run that nothing disturbed."""
    steps, number = 60 * EVERY, int(os.environ.get("CROSSREG_SOAK", "30"))
    quiet = Run(cluster, *ARGUMENTS, "--steps", str(steps))
    quiet.finish(timeout=1200)
    draw = random.Random(0)
    kinds = [name for name in PASSING if "minute" not in name]
    run = Run(cluster, *ARGUMENTS, "--steps", str(steps), *PATIENT)
    began, counts = time.monotonic(), dict.fromkeys([*kinds, "stop and --resume", "SIGKILL of the job"], 0)
    for _ in range(number):
        run.wait_for(run.step() + draw.randrange(30, 2 * EVERY))
        kind = draw.choice(list(counts))
        counts[kind] += 1
        if kind == "stop and --resume":
            run.jobs.stop(run.job)
            run.finish("STOPPED")
            run = Run(cluster, "--workers", "2", *PATIENT, run_id=run.run_id)
        elif kind == "SIGKILL of the job":
            run.kill()
            run = Run(cluster, "--workers", "2", *PATIENT, run_id=run.run_id)
        else:
            PASSING[kind](cluster, run)
    run.finish(timeout=1200)
    assert_same(run.history(), quiet.history())
    note(f"{number} at random", again=counts, seconds=time.monotonic() - began, said="")
