"""Steps a second once a training runs: with checkpoints and without, one process and two.

The same training of an `mlp` on made-up rows of 784 numbers, noise and temperature learned, in turns: bare in one
process, and in two under `torchrun`; `crossreg train --workers 0` without checkpoints until the end, and with them at
their default, every tenth of the run. Steps are counted from the hundredth to the last but a few, after which the
splits are evaluated. Each process has one thread and batches of 128, so two processes do twice the work of one. Beside
them stands the share of a step that getting its batch takes. What the product costs beside the bare training is less
than runs of their own tell: see `benchmarks.in_turns`.

    python -m benchmarks.steady --rounds 3
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import numpy as np

STEPS, FROM, TO, ROWS = 1000, 100, 990, 128
Points = list[tuple[int, float]]
"""Steps, and the seconds since the epoch at which they were taken."""


def settings(folder: Path, workers: int) -> dict[str, Any]:
    """Return the training; its data are written into the folder."""
    path = folder / "rows.npz"
    if not path.exists():
        rng = np.random.default_rng(0)
        np.savez(path, x=rng.normal(size=(20_000, 784)).astype("float32"), y=rng.integers(0, 10, 20_000))
    return {
        "model": "mlp",
        "data": {"name": str(path)},
        "optimizer": {"schedule": "cosine"},
        "steps": STEPS,
        "batch_size": ROWS * max(1, workers),
        "evaluations": 1,
    }


def bare_command(folder: Path, training: dict[str, Any], workers: int, steps: Iterable[int]) -> list[str]:
    """Return the command that trains without Ray and without tracking; see `timed` for when it took the steps."""
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", str(workers)] if workers > 1 else []
    arguments = [json.dumps(training), str(folder / "times"), *map(str, steps)]
    return [sys.executable, *launcher, "-m", "benchmarks.bare", *arguments]


def product_command(folder: Path, training: dict[str, Any], workers: int, checkpoint_every: int | None) -> list[str]:
    """Return the command that trains as the product does; see `recorded` for when it took which steps."""
    own = {**training, "placement": {"workers": workers, "checkpoint_every": checkpoint_every}}
    (folder / "config.json").write_text(json.dumps(own))
    return [sys.executable, "-m", "crossreg.jobs.train", "--config", "config.json", "--json"]


def environment(folder: Path) -> dict[str, str]:
    """Return the environment of either, which runs in the folder with one thread."""
    return {**os.environ, "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}


def timed(folder: Path) -> Points:
    """Return what a bare training wrote at its end."""
    return [(int(step), at) for step, at in json.loads((folder / "times").read_text()).items()]


def recorded(folder: Path) -> Points:
    """Return what the product has recorded so far; the last line may be half written."""
    found: Points = []
    for path in folder.glob("runs/*/tracking/spool.jsonl"):
        for line in path.read_text().split("\n")[:-1]:
            one = json.loads(line)
            if "train/loss" in one.get("metrics", {}):
                found.append((one["step"], one["time"] / 1000))
    return found


def rate(points: Points) -> float:
    """Return steps a second from the first step to the last."""
    (first, began), (last, ended) = min(points), max(points)
    return (last - first) / (ended - began)


def bare(folder: Path, workers: int) -> float:
    """Return steps a second without Ray and without tracking."""
    _run(bare_command(folder, settings(folder.parent, workers), workers, (FROM, TO)), folder)
    return rate(timed(folder))


def product(folder: Path, checkpoint_every: int | None) -> float:
    """Return steps a second of `crossreg train --workers 0`, by the times of its metrics."""
    _run(product_command(folder, settings(folder.parent, 0), 0, checkpoint_every), folder)
    return rate([(step, at) for step, at in recorded(folder) if FROM <= step <= TO])


def _run(command: list[str], folder: Path) -> None:
    done = subprocess.run(command, cwd=folder, env=environment(folder), capture_output=True, text=True)
    if done.returncode:
        raise SystemExit(done.stderr)


def loading_share(folder: Path) -> float:
    """Return the share of a training step that getting its batch takes, in this process."""
    import torch

    from crossreg.services.data import load_data
    from crossreg.services.training.assemble import build_trainer
    from crossreg.services.training.config import TrainConfig
    from crossreg.services.training.resolve import resolve

    torch.set_num_threads(1)
    config = TrainConfig.model_validate(settings(folder, 1))
    data = load_data(config.data)
    trainer = build_trainer(resolve(config, data), data, torch.device("cpu"))
    trainer.start()
    trainer.advance(20)
    whole, batches = [], []
    for turn in range(1, 6):
        began = time.perf_counter()
        trainer.advance(20 + 30 * turn)
        whole.append(time.perf_counter() - began)
        began = time.perf_counter()
        for _, _batch in zip(range(30), trainer.train.starting_at(0), strict=False):
            pass
        batches.append(time.perf_counter() - began)
    return statistics.median(batches) / statistics.median(whole)


ARMS: dict[str, Callable[[Path], float]] = {
    "bare, one process": lambda folder: bare(folder, 1),
    "crossreg train --workers 0, no checkpoints": lambda folder: product(folder, STEPS),
    "crossreg train --workers 0": lambda folder: product(folder, None),
    "torchrun, two processes": lambda folder: bare(folder, 2),
}


def measure(rounds: int, say: Callable[[str], None] = lambda text: None) -> dict[str, float]:
    """Return the ratios, each of the arms' best of rounds in which they take turns, and the share of loading.

    Whatever else a machine does only makes a round slower, so the fastest is nearest to what the arm itself takes.

    Args:
        rounds: how many.
        say: is told the steps a second of every round.
    """
    found: dict[str, list[float]] = {name: [] for name in ARMS}
    with tempfile.TemporaryDirectory() as folder:
        for turn in range(rounds):
            for name, arm in ARMS.items():
                own = Path(folder) / f"{turn}-{len(found[name])}-{list(ARMS).index(name)}"
                own.mkdir()
                found[name].append(arm(own))
            say(", ".join(f"{name} {speeds[-1]:.1f}" for name, speeds in found.items()) + " steps/s")
        share = loading_share(Path(folder))
    one, unsaved, saved, two = found.values()

    def ratio(mine: list[float], other: list[float]) -> float:
        return max(mine) / max(other)

    return {
        "without checkpoints / with": ratio(unsaved, saved),
        "two processes / one": ratio(two, one),
        "loading share": share,
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    for name, value in measure(parser.parse_args().rounds, print).items():
        print(f"{name}: {value:.3f}")


if __name__ == "__main__":
    main()
