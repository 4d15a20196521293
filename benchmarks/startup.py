"""How long until the first training step: `crossreg train`, plain Ray Train and `torchrun` side by side.

All three build the same training of a small network on digits with two workers and note the moment of the first step;
the clock starts when the command is typed. *Ray Train* is a script of a dozen lines: `ray.init`, `TorchTrainer`, the
same assembly in the workers, no MLflow and no command line; what `crossreg train` takes beyond it is ours. Beside it
stand the CPU seconds that the whole machine spent until then: where nothing else runs, those divided by the number of
cores are the least that any order of doing the same things could take. *Alone*: importing PyTorch and making an
optimizer, and importing MLflow and making its file, which a training in one process cannot do without. Rounds
alternate, so that ratios hold when the machine's speed drifts.

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
from collections.abc import Callable
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


def torch_alone(folder: Path) -> tuple[float, float]:
    """What every training with PyTorch pays: its import, and what building an optimizer imports."""
    return _alone("import torch; torch.optim.AdamW([torch.zeros(1, requires_grad=True)])", folder)


def mlflow_alone(folder: Path) -> tuple[float, float]:
    """What every program pays that records in a fresh SQLite file."""
    return _alone("import mlflow; mlflow.MlflowClient('sqlite:///mlflow.db').search_experiments()", folder)


def _alone(program: str, folder: Path) -> tuple[float, float]:
    return timed([sys.executable, "-c", program], folder, time.time)


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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    arms = (torchrun, ray_train, crossreg, crossreg_here, torch_alone, mlflow_alone)
    found: dict[str, list[tuple[float, float]]] = {arm.__name__: [] for arm in arms}
    print(f"load before: {os.getloadavg()[0]:.1f}, cores: {psutil.cpu_count()}")
    for _ in range(rounds):
        for arm in arms:
            with tempfile.TemporaryDirectory() as folder:
                found[arm.__name__].append(arm(Path(folder)))
        print(", ".join(f"{name} {times[-1][0]:.1f} s ({times[-1][1]:.1f} CPU s)" for name, times in found.items()))
    base = [seconds for seconds, _ in found["torchrun"]]
    for name, times in found.items():
        ratio = statistics.median(seconds / one for (seconds, _), one in zip(times, base, strict=True))
        print(f"{name}: median {statistics.median(seconds for seconds, _ in times):.1f} s, {ratio:.2f} times torchrun")


if __name__ == "__main__":
    main()
