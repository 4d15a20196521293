"""How long until the first training step: `crossreg train` on Ray beside the same training under `torchrun`.

Both build the same training of a small network on digits with two workers and print the moment of the first step; the
clock starts when the command is typed. Rounds alternate, so that the ratio holds when the machine's speed drifts.

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
from pathlib import Path

SETTINGS = {"model": "mlp", "model_options": {"hidden": 32}, "data": {"name": "digits"}, "steps": 20}

# what torchrun starts: the same assembly without Ray and MLflow
TORCHRUN = """
import sys, time
import torch
from crossreg import Callback, process_group
from crossreg.distributed import rank
from services.data import load_data
from services.training.assemble import build_trainer
from services.training.config import TrainConfig

class First(Callback):
    def on_step(self, trainer):
        if trainer.step == 1 and rank() == 0:
            print("FIRST", time.time(), flush=True)

config = TrainConfig.model_validate_json(sys.argv[1])
with process_group("gloo"):
    build_trainer(config, load_data(config.data), torch.device("cpu"), [First()]).fit()
"""


def torchrun(folder: Path) -> float:
    script = folder / "torchrun.py"
    script.write_text(TORCHRUN)
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2", str(script)]
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd()), "OMP_NUM_THREADS": "1"}
    start = time.time()
    result = subprocess.run(
        [*command, json.dumps(SETTINGS)], env=environment, capture_output=True, text=True, check=True
    )
    return float(result.stdout.split("FIRST ")[1].split()[0]) - start


def ray(folder: Path) -> float:
    """Take the first step from the time stamps that the run records with its metrics (every step is logged)."""
    run = folder / f"ray-{time.time_ns()}"
    run.mkdir()
    (run / "config.json").write_text(json.dumps({**SETTINGS, "placement": {"workers": 2}}))
    environment = {**os.environ, "PYTHONPATH": str(Path.cwd())}
    start = time.time()
    command = [sys.executable, "-m", "jobs.train", "--config", "config.json", "--json"]
    subprocess.run(command, cwd=run, env=environment, capture_output=True, text=True, check=True)
    records = [json.loads(line) for line in next(run.glob("runs/*/tracking/spool.jsonl")).open()]
    return min(r["time"] for r in records if "train/loss" in r.get("metrics", {})) / 1000 - start


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    pairs = []
    with tempfile.TemporaryDirectory() as folder:
        for _ in range(rounds):
            pairs.append((torchrun(Path(folder)), ray(Path(folder))))
            t, r = pairs[-1]
            print(f"torchrun {t:.1f} s, crossreg train {r:.1f} s, ratio {r / t:.2f}", flush=True)
    print(f"median ratio {statistics.median(r / t for t, r in pairs):.2f}")


if __name__ == "__main__":
    main()
