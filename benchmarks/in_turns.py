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
import signal
import statistics
import subprocess
import tempfile
import time
from pathlib import Path

import psutil

from benchmarks.steady import FROM, Points, bare_command, environment, product_command, rate, recorded, settings, timed

STEPS, SLICE = 1800, 2.0


def in_turns(folder: Path, workers: int) -> list[float]:
    """Return the ratios, product to bare, of neighbouring slices in which both were training."""
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
        started.append(other := _start(bare_command(bare, training, workers, range(1, STEPS + 1)), bare))
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
    finally:
        for process in started:
            if process.poll() is None:  # nothing that is stopped is left behind
                _signal(process, signal.SIGKILL)
    points = {True: recorded(ours), False: timed(bare)}
    rates = [_rate_within(points[own], began, ended) for own, began, ended in slices]
    pairs = zip(rates[::2], rates[1::2], strict=False)
    return [mine / theirs for theirs, mine in pairs if mine is not None and theirs is not None]


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
    own = [(step, at) for step, at in points if FROM < step < STEPS - 10 and began + 0.1 <= at <= ended]
    return rate(own) if own and max(own)[1] - min(own)[1] >= SLICE / 2 else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("workers", type=int, choices=[0, 1, 2], help="as for crossreg train")
    with tempfile.TemporaryDirectory() as folder:
        ratios = in_turns(Path(folder), parser.parse_args().workers)
    low, _, high = statistics.quantiles(ratios)
    print(
        f"{statistics.median(ratios):.3f} of {len(ratios)} pairs of slices, half of them from {low:.3f} to {high:.3f}"
    )


if __name__ == "__main__":
    main()
