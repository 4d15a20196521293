"""Every fault of `docs/operations.md`, done to a training on a real cluster: `make faults`.

With `CROSSREG_FAULTS` a file gets a line for every fault: what was done again, how long it took, what was said.
"""

from __future__ import annotations

import contextlib
import json
import os
import random
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import mlflow
import pytest

from services.cluster import LocalCluster
from tests.services.cluster.faults import PASSING
from tests.services.cluster.running import Run, assert_same

pytestmark = [pytest.mark.ray, pytest.mark.slow, pytest.mark.faults]

STEPS, EVERY = 1600, 200
ARGUMENTS = ("--data", "digits", "--model", "mlp", "--workers", "2", "--checkpoint-every", str(EVERY))
PATIENT = ("--max-failures", "1000", "--hang-timeout", "20")


@pytest.fixture(scope="module")
def straight(cluster: LocalCluster) -> dict[str, list[tuple[int, float]]]:
    """What a run records that nothing disturbs."""
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS))
    run.finish()
    return run.history()


def note(fault: str, **found: object) -> None:
    """Keep a line of the table."""
    if path := os.environ.get("CROSSREG_FAULTS"):
        with Path(path).open("a") as out:
            out.write(json.dumps({"fault": fault, **found}) + "\n")


def said(log: str, *words: str) -> str:
    """Return the last line of a log that has one of the words."""
    lines = [line for line in log.splitlines() if any(word in line for word in words)]
    return lines[-1].strip() if lines else ""


def done_again(run: Run, before: int) -> int:
    """Return the steps that were trained twice after a fault at step `before`."""
    tags = mlflow.MlflowClient().get_run(run.run_id).data.tags
    starts = [int(text.rpartition(" ")[2]) for key, text in tags.items() if key.startswith("recovered.")]
    return sum(max(0, before - start) for start in starts[:1])


@pytest.mark.parametrize("fault", PASSING)
def test_a_run_outlives(fault: str, cluster: LocalCluster, straight: dict[str, list[tuple[int, float]]]) -> None:
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


def test_the_head_is_killed(cluster: LocalCluster, straight: dict[str, list[tuple[int, float]]]) -> None:
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


def test_sigterm(cluster: LocalCluster, straight: dict[str, list[tuple[int, float]]]) -> None:
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


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[Path]:
    """A file system of 2 MiB (root only)."""
    if os.getuid() != 0:
        pytest.skip("mounting a small file system needs root")
    folder.mkdir()
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2m", "tmpfs", str(folder)], check=True)
    try:
        yield folder
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


@pytest.mark.parametrize("fault", ["storage full", "storage read-only"])
def test_storage_that_takes_nothing_more(
    fault: str, cluster: LocalCluster, straight: dict[str, list[tuple[int, float]]]
) -> None:
    with small_disk(cluster.folder / fault.replace(" ", "-")) as disk:
        run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), "--storage-path", str(disk), "--max-failures", "1")
        # the driver's record of the run goes with its checkpoints, so it lies on that disk too
        deadline = time.monotonic() + 240
        while not list(disk.glob("*/checkpoint_*/checkpoint.pt")) and time.monotonic() < deadline:
            time.sleep(0.1)
        filler = disk / "filler"
        if fault == "storage full":
            with contextlib.suppress(OSError), filler.open("wb") as out:
                while True:
                    out.write(b"0" * 4096)
                    out.flush()
        else:
            subprocess.run(["mount", "-o", "remount,ro", str(disk)], check=True)
        log = run.finish("FAILED")
        run_id = run.run_id
        message = said(log, "No space left", "Read-only", "cannot be written")
        assert message
        if fault == "storage full":
            filler.unlink()
        else:
            subprocess.run(["mount", "-o", "remount,rw", str(disk)], check=True)
        began = time.monotonic()
        again = Run(cluster, "--workers", "2", run_id=run_id)
        again.finish()
        assert_same(again.history(), straight)
        note(
            f"{fault}, room made, --resume", again="up to a checkpoint", seconds=time.monotonic() - began, said=message
        )


@pytest.mark.parametrize("damage", ["truncated", "corrupted", "of an older version"])
def test_a_damaged_checkpoint(
    damage: str, cluster: LocalCluster, straight: dict[str, list[tuple[int, float]]], tmp_path: Path
) -> None:
    import torch

    storage = cluster.folder / "kept" / damage.split()[-1]
    run = Run(cluster, *ARGUMENTS, "--steps", str(STEPS), "--storage-path", str(storage))
    deadline = time.monotonic() + 240
    while len(list(storage.glob("*/checkpoint_*/checkpoint.pt"))) < 2 and time.monotonic() < deadline:
        time.sleep(0.1)
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


def test_two_jobs_write_to_one_experiment(cluster: LocalCluster) -> None:
    arguments = ("--data", "digits", "--model", "mlp", "--steps", "600", "--experiment", "shared")
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
    arguments = ("--data", str(path), "--model", "mlp", "--steps", str(STEPS), "--workers", "2")
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
    run = Run(cluster, "--data", "digits", "--model", "mlp", "--steps", "300", "--lr", "1e30", "--optimizer", "sgd")
    log = run.finish("SUCCEEDED")
    message = said(log, "NaN", "diverged", "not finite")
    assert message
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
