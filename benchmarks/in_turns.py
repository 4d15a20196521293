"""Steps a second of `crossreg train` to a bare process, by letting each run for two seconds while the other is stopped.

A machine whose speed changes within minutes tells no three percent between runs of a minute each; between neighbouring
slices of two seconds it nearly does. Both trainings are those of `benchmarks.steady`, without checkpoints; all
processes of one (Ray's too) get SIGSTOP while the other's run. Twice the time passes for what goes by the clock, as
sending to MLflow.

    python -m benchmarks.in_turns 0             # --workers 0 to a process; 1: a Ray worker; 2: two, to torchrun
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import psutil

from benchmarks.steady import FROM, settings

STEPS, SLICE = 1800, 2.0
Points = list[tuple[int, float]]
"""Steps, and the seconds since the epoch at which they were taken."""


def in_turns(folder: Path, workers: int) -> list[float]:
    """Return the ratios, product to bare, of neighbouring slices in which both were training."""
    ours, bare = folder / "ours", folder / "bare"
    ours.mkdir()
    bare.mkdir()
    training = {**settings(folder, workers), "steps": STEPS}
    placed = {**training, "placement": {"workers": workers, "checkpoint_every": STEPS}}
    (ours / "config.json").write_text(json.dumps(placed))
    product = _start(["-m", "crossreg.jobs.train", "--config", "config.json", "--json"], ours)
    while not any(step > FROM for step, _ in _recorded(ours)):
        time.sleep(0.5)
        if product.poll() is not None:
            raise SystemExit((ours / "err").read_text())
    _signal(product, signal.SIGSTOP)
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)] if workers > 1 else []
    steps = map(str, range(1, STEPS + 1))
    other = _start([*launcher, "-m", "benchmarks.bare", json.dumps(training), str(bare / "times"), *steps], bare)
    slices, running, waiting = [], other, product
    while product.poll() is None and other.poll() is None:
        began = time.time()
        time.sleep(SLICE)
        slices.append((running is product, began, time.time()))
        _signal(running, signal.SIGSTOP)
        _signal(waiting, signal.SIGCONT)
        running, waiting = waiting, running
    for process, where in ((product, ours), (other, bare)):
        _signal(process, signal.SIGCONT)
        if process.wait():
            raise SystemExit((where / "err").read_text())
    times: Points = [(int(step), at) for step, at in json.loads((bare / "times").read_text()).items()]
    rates = [_rate(_recorded(ours) if own else times, began, ended) for own, began, ended in slices]
    pairs = zip(rates[::2], rates[1::2], strict=False)
    return [mine / theirs for theirs, mine in pairs if mine is not None and theirs is not None]


def _start(arguments: Sequence[str], folder: Path) -> subprocess.Popen[bytes]:
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen([sys.executable, *arguments], cwd=folder, env=environment, stdout=out, stderr=err)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all below it."""
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(process.pid)
        for one in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                one.send_signal(number)


def _recorded(folder: Path) -> Points:
    """Return the steps that the product has recorded so far; the last line may be half written."""
    found: Points = []
    for path in folder.glob("runs/*/tracking/spool.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            record = json.loads(line)
            if "train/loss" in record.get("metrics", {}):
                found.append((record["step"], record["time"] / 1000))
    return found


def _rate(points: Points, began: float, ended: float) -> float | None:
    """Return steps a second within a slice; None where the training was not in steady state for half of it."""
    own = [(step, at) for step, at in points if FROM < step < STEPS - 10 and began + 0.1 <= at <= ended]
    if len(own) < 2 or own[-1][1] - own[0][1] < SLICE / 2:
        return None
    return (own[-1][0] - own[0][0]) / (own[-1][1] - own[0][1])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", type=int, choices=[0, 1, 2])
    with tempfile.TemporaryDirectory() as folder:
        ratios = in_turns(Path(folder), parser.parse_args().workers)
    low, _, high = statistics.quantiles(ratios)
    print(
        f"{statistics.median(ratios):.3f} of {len(ratios)} pairs of slices, half of them from {low:.3f} to {high:.3f}"
    )


if __name__ == "__main__":
    main()
