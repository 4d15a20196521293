"""How long until the first training step: `crossreg train`, plain Ray Train and `torchrun` side by side.

All three build the same training of a small network on digits with two workers and note the moment of the first step;
the clock starts when the command is typed. *Ray Train* is a script of a dozen lines: `ray.init`, `TorchTrainer`, the
same assembly in the workers, no MLflow and no command line; what `crossreg train` takes beyond it is ours. Beside it
stand the CPU seconds that the whole machine spent until then: where nothing else runs, those divided by the number of
cores are the least that any order of doing the same things could take. *Libraries alone*: one process imports what a
training in one process cannot do without, PyTorch, MLflow and scikit-learn, and takes each for its first step: an
optimizer, the SQLite file, the data. Rounds alternate, so that ratios hold when the machine's speed drifts.

    python -m benchmarks.startup --rounds 3
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
from collections.abc import Callable, Sequence
from pathlib import Path

import psutil

SETTINGS = {"model": "mlp", "model_options": {"hidden": 32}, "data": {"name": "digits"}, "steps": 20}

RAY_TRAIN = """
import sys
from crossreg.services.training.config import Placement
from crossreg.services.training.runtime import start_ray

start_ray(Placement(workers=2))
import ray.train
from ray.train.torch import TorchTrainer

def train(settings):
    from benchmarks.bare import train
    train(*settings["arguments"], [1])

scaling, run = ray.train.ScalingConfig(num_workers=2), ray.train.RunConfig(storage_path=sys.argv[3])
TorchTrainer(train, train_loop_config={"arguments": sys.argv[1:3]}, scaling_config=scaling, run_config=run).fit()
"""

LIBRARIES = """
import json, time
import torch
torch.optim.AdamW([torch.zeros(1, requires_grad=True)])
import mlflow
mlflow.MlflowClient("sqlite:///mlflow.db").search_experiments()
import sklearn.datasets, sklearn.model_selection
sklearn.datasets.load_digits()
json.dump({"1": time.time()}, open("first", "w"))
"""

Cost = tuple[float, float]
"""Seconds, and the machine's CPU seconds, until the first step."""
Arm = Callable[..., Cost]


def timed(command: list[str], folder: Path, first: Callable[[], float]) -> tuple[float, float]:
    """Return seconds and the machine's CPU seconds until the first step, of which `first` tells the time."""
    environment = {**os.environ, "PYTHONPATH": f"{Path.cwd()}{os.pathsep}{folder}", "OMP_NUM_THREADS": "1"}
    samples: list[tuple[float, float]] = []
    start = time.time()
    with (folder / "log").open("w") as log:
        process = subprocess.Popen(command, cwd=folder, env=environment, stdout=log, stderr=log)
        while process.poll() is None:
            times = psutil.cpu_times()
            samples.append((time.time(), times.user + times.nice + times.system))
            time.sleep(0.05)
    try:
        when = first()  # how it ended is of no interest here
    except (OSError, StopIteration, ValueError):
        raise SystemExit((folder / "log").read_text()) from None
    return when - start, next((cpu for at, cpu in samples if at >= when), samples[-1][1]) - samples[0][1]


def libraries_alone(folder: Path) -> tuple[float, float]:
    """What a training in one process consists of: an optimizer, a fresh SQLite file of MLflow, the data and a split."""
    return timed([sys.executable, "-c", LIBRARIES], folder, lambda: _first_step(folder))


def torchrun(folder: Path) -> tuple[float, float]:
    launcher = ["-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    training = ["-m", "benchmarks.bare", json.dumps(SETTINGS), str(folder / "first"), "1"]
    return timed([sys.executable, *launcher, *training], folder, lambda: _first_step(folder))


def _first_step(folder: Path) -> float:
    return float(json.loads((folder / "first").read_text())["1"])


def ray_train(folder: Path) -> tuple[float, float]:
    (folder / "script.py").write_text(RAY_TRAIN)
    command = [sys.executable, "script.py", json.dumps(SETTINGS), str(folder / "first"), str(folder / "runs")]
    return timed(command, folder, lambda: _first_step(folder))


def crossreg(folder: Path, workers: int = 2) -> tuple[float, float]:
    """The first step is when the run says that it was, with its metrics (every step is logged)."""
    (folder / "config.json").write_text(json.dumps({**SETTINGS, "placement": {"workers": workers}}))

    def first() -> float:
        records = [json.loads(line) for line in next(folder.glob("runs/*/tracking/spool.jsonl")).open()]
        return min(r["time"] for r in records if "train/loss" in r.get("metrics", {})) / 1000

    return timed([sys.executable, "-m", "crossreg.jobs.train", "--config", "config.json", "--json"], folder, first)


def crossreg_here(folder: Path) -> tuple[float, float]:
    """In the command's own process, `--workers 0`."""
    return crossreg(folder, workers=0)


def measure(arms: Sequence[Arm], rounds: int, say: Callable[[str], None] = lambda text: None) -> list[list[Cost]]:
    """Return what each arm takes, round by round; in a round the arms take turns.

    Args:
        arms: what is timed.
        rounds: how many.
        say: is told the costs of every round.
    """
    found: list[list[Cost]] = [[] for _ in arms]
    for _ in range(rounds):
        for arm, costs in zip(arms, found, strict=True):
            with tempfile.TemporaryDirectory() as folder:
                costs.append(arm(Path(folder)))
        last = [(arm.__name__, *costs[-1]) for arm, costs in zip(arms, found, strict=True)]
        say(", ".join(f"{name} {seconds:.1f} s ({cpu:.1f} CPU s)" for name, seconds, cpu in last))
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    arms = (torchrun, ray_train, crossreg, crossreg_here, libraries_alone)
    print(f"load before: {os.getloadavg()[0]:.1f}, cores: {psutil.cpu_count()}")
    found = {arm.__name__: costs for arm, costs in zip(arms, measure(arms, rounds, print), strict=True)}
    base = [seconds for seconds, _ in found["torchrun"]]
    for name, times in found.items():
        ratio = statistics.median(seconds / one for (seconds, _), one in zip(times, base, strict=True))
        print(f"{name}: median {statistics.median(seconds for seconds, _ in times):.1f} s, {ratio:.2f} times torchrun")


if __name__ == "__main__":
    main()
