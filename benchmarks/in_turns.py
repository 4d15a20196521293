"""Steps a second of `crossreg train` to a bare process, by letting each run for seconds while the other is stopped.

A machine whose speed changes within minutes tells no three percent between runs of a minute each; between neighbouring
slices of seconds it nearly does. Both trainings are those of `benchmarks.steady`, without checkpoints; all processes
of one (Ray's too) get SIGSTOP while the other's run. The product's slices are the longer ones, since what goes by the
clock (sending to MLflow) comes to its turn in them alone; each is compared to the bare ones before and after it.

    python -m benchmarks.in_turns 0             # --workers 0 to a process; 1: a Ray worker; 2: two, to torchrun
"""

from __future__ import annotations

import argparse
import contextlib
import math
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.steady import FROM, Points, bare_command, environment, product_command, rate, recorded, settings, timed

STEPS = 5400
OURS, BARE = 6.0, 2.0  # seconds of a slice


def in_turns(folder: Path, workers: int) -> list[float]:
    """Return the ratio of each of the product's slices to the bare ones beside it.

    Raises:
        SystemExit: a training failed, or was over before there were two of them.
    """
    ours, bare = folder / "ours", folder / "bare"
    ours.mkdir()
    bare.mkdir()
    training = {**settings(folder, workers), "steps": STEPS}
    started: list[subprocess.Popen[bytes]] = []
    try:
        started.append(product := _start(product_command(ours, training, workers, STEPS), ours))
        while product.poll() is None and not any(step > FROM for step, _ in recorded(ours)):
            time.sleep(0.5)
        _signal(product, signal.SIGSTOP)
        few = round(STEPS * BARE / OURS)
        started.append(other := _start(bare_command(bare, {**training, "steps": few}, workers, range(1, few)), bare))
        slices, running, waiting = [], other, product
        while product.poll() is None and other.poll() is None:
            began = time.time()
            time.sleep(OURS if running is product else BARE)
            slices.append((running is product, began, time.time()))
            _signal(running, signal.SIGSTOP)
            _signal(waiting, signal.SIGCONT)
            running, waiting = waiting, running
        for process, where in ((product, ours), (other, bare)):
            _signal(process, signal.SIGCONT)
            if process.wait():
                raise SystemExit((where / "err").read_text())
    finally:
        for process in started:
            if process.poll() is None:  # nothing that is stopped is left behind
                _signal(process, signal.SIGKILL)
    points = {True: recorded(ours), False: timed(bare)}
    rates = [(mine, _rate_within(points[mine], began, ended)) for mine, began, ended in slices]
    found = []
    for (_, before), (mine, rate_of_ours), (_, after) in zip(rates, rates[1:], rates[2:], strict=False):
        if mine and before and rate_of_ours and after:
            found.append(2 * rate_of_ours / (before + after))
    if len(found) < 2:
        raise SystemExit(f"in {STEPS} steps too few of {len(slices)} slices had both training; raise STEPS")
    return found


def median(ratios: list[float]) -> tuple[float, float]:
    """Return the median, and two of its standard errors relative to it, from where half of the ratios are."""
    low, middle, high = statistics.quantiles(ratios)
    deviation = (high - low) / 1.35  # as of normal numbers, whose median is off by 1.25 of a mean's standard error
    return middle, 2 * 1.25 * deviation / math.sqrt(len(ratios)) / middle


def _start(command: list[str], folder: Path) -> subprocess.Popen[bytes]:
    with (folder / "out").open("w") as out, (folder / "err").open("w") as err:
        return subprocess.Popen(command, cwd=folder, env=environment(folder), stdout=out, stderr=err)


def _signal(process: subprocess.Popen[bytes], number: signal.Signals) -> None:
    """Send a signal to a process and all below it."""
    with contextlib.suppress(psutil.Error):
        top = psutil.Process(process.pid)
        for one in (top, *top.children(recursive=True)):
            with contextlib.suppress(psutil.Error):
                one.send_signal(number)


def _rate_within(points: Points, began: float, ended: float) -> float | None:
    """Return steps a second within a slice; None where the training was not in steady state for half of it."""
    last = max(points)[0] - 10
    own = [(step, at) for step, at in points if FROM < step < last and began + 0.1 <= at <= ended]
    return rate(own) if own and max(own)[1] - min(own)[1] >= (ended - began) / 2 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", type=int, choices=[0, 1, 2], help="as for crossreg train")
    with tempfile.TemporaryDirectory() as folder:
        ratios = in_turns(Path(folder), parser.parse_args().workers)
    low, _, high = statistics.quantiles(ratios)
    middle, error = median(ratios)
    print(f"{middle:.3f} +- {error * middle:.3f} of {len(ratios)} slices, half of them from {low:.3f} to {high:.3f}")


if __name__ == "__main__":
    main()
