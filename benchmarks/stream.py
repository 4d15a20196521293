"""What reading training data from disk costs (`--stream`), in speed and in memory.

*Throughput*: the same training on the same data, in memory and read from disk, in turns within one process of one Ray:
rounds alternate, so that ratios hold when the machine's speed drifts. A round of the streamed one includes that its
pipeline starts anew. In memory images have been decoded once, before; from disk they are decoded every epoch, by tasks
that share the machine's CPUs with the training.

*Memory*: a Parquet file larger than Ray's object store, which is limited to 200 MB, is written and trained on for one
epoch, while the memory that is each process's own, and what is in the object store, are sampled. Thirds of the run
stand beside each other: what grows with the data would show.

    python -m benchmarks.stream throughput --data data/cifar10 --model cnn --steps 60 --rounds 3
    python -m benchmarks.stream memory --gib 2
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import threading
import time
from collections import defaultdict
from pathlib import Path
from typing import Any

import numpy as np
import psutil

STORE_BYTES = 200_000_000
COLUMNS = 20
GROUP = 100_000


def throughput(data: str, model: str, batch_size: int, steps: int, rounds: int, target: str | None) -> None:
    """Print examples a second, in memory and from disk, and their ratio."""
    import ray

    from crossreg.services.training.config import Placement
    from crossreg.services.training.runtime import available_cpus, start_ray

    start_ray(Placement(), reading=True)
    cpus = available_cpus()
    settings = {
        "model": model,
        "data": {"name": str(Path(data).resolve()), "target": target},
        "optimizer": {"schedule": "cosine"},
        "regularizers": "none",
        "batch_size": batch_size,
        "steps": 10**6,
        "evaluations": 1,
    }

    @ray.remote(num_cpus=cpus)  # as a worker of a training has them
    def measure() -> dict[str, list[float]]:
        import torch

        from crossreg.services.data import load_data
        from crossreg.services.training.assemble import build_trainer
        from crossreg.services.training.config import TrainConfig
        from crossreg.services.training.resolve import resolve

        torch.set_num_threads(cpus)
        trainers = {}
        for name, stream in (("memory", False), ("disk", True)):
            given = {**settings, "data": {**settings["data"], "stream": stream}}  # type: ignore[dict-item]
            config = TrainConfig.model_validate(given)
            loaded = load_data(config.data, may_stream=True)
            trainers[name] = build_trainer(resolve(config, loaded), loaded, torch.device("cpu"))
            trainers[name].start()
            trainers[name].advance(5)
        found: dict[str, list[float]] = {name: [] for name in trainers}
        for _ in range(rounds):
            for name, trainer in trainers.items():
                began = time.perf_counter()
                trainer.advance(trainer.step + steps)
                found[name].append(steps * batch_size / (time.perf_counter() - began))
                print(name, f"{found[name][-1]:.0f}", flush=True)
        return found

    found = ray.get(measure.remote())
    for name, rates in found.items():
        print(f"{name}: {', '.join(f'{rate:,.0f}' for rate in rates)} examples/s")
    ratios = [disk / memory for memory, disk in zip(found["memory"], found["disk"], strict=True)]
    print(f"from disk / in memory: {', '.join(f'{one:.2f}' for one in ratios)}; median {statistics.median(ratios):.2f}")


def write_table(path: Path, gib: float) -> int:
    """Write columns of random numbers, 8 bytes each, in row groups; return the number of rows."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = int(gib * 2**30 / (8 * (COLUMNS + 1)) // GROUP * GROUP)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=COLUMNS)
    names = [*(f"x{place:02}" for place in range(COLUMNS)), "y"]
    with parquet.ParquetWriter(path, pa.schema([(name, pa.float64()) for name in names])) as writer:
        for _ in range(0, rows, GROUP):
            x = rng.normal(size=(GROUP, COLUMNS))
            y = x @ weights + rng.normal(size=GROUP)
            writer.write_table(pa.table([*x.T, y], names=names), row_group_size=GROUP)
    return rows


class Sampler(threading.Thread):
    """Samples the memory of this process and of those that it started, by what they do, until stopped."""

    def __init__(self) -> None:
        super().__init__(daemon=True)
        self.found: dict[str, list[float]] = defaultdict(list)
        self.ended = threading.Event()

    def run(self) -> None:
        """Sample once a second, in MiB."""
        import ray

        me = psutil.Process()
        total = ray.cluster_resources()["object_store_memory"]
        while not self.ended.wait(1):
            now: dict[str, float] = defaultdict(float)
            for process in [me, *me.children(recursive=True)]:
                role = "driver" if process == me else _role(process)
                if role is not None:
                    try:
                        now[role] += process.memory_full_info().uss / 2**20
                    except psutil.Error:
                        continue
            if "worker" in now:  # the training has begun
                now["object store"] = (total - ray.available_resources().get("object_store_memory", total)) / 2**20
                for role in ("driver", "worker", "reading tasks", "object store"):
                    self.found[role].append(now[role])


def _role(process: psutil.Process) -> str | None:
    try:
        title = " ".join(process.cmdline())
    except psutil.Error:
        return None
    if "RayTrainWorker" in title:
        return "worker"
    return "reading tasks" if title.startswith(("ray::MapBatches", "ray::IDLE")) else None


def memory(gib: float) -> None:
    """Print the most memory by process in each third of a training on a file larger than the object store."""
    os.environ["RAY_DEFAULT_OBJECT_STORE_MAX_MEMORY_BYTES"] = str(STORE_BYTES)
    import ray

    from crossreg.services.tracking import TrackingConfig
    from crossreg.services.training.config import Placement, TrainConfig
    from crossreg.services.training.driver import train
    from crossreg.services.training.runtime import start_ray

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "large.parquet"
        rows = write_table(path, gib)
        print(f"{rows:,} rows of {COLUMNS} numbers, {path.stat().st_size / 2**30:.2f} GiB on disk", flush=True)
        start_ray(Placement(), reading=True)
        sampler = Sampler()
        sampler.start()
        settings: dict[str, Any] = {
            "model": "mlp",
            "model_options": {"linear_skip": False},
            "data": {"name": str(path), "target": "y", "stream": True},
            "optimizer": {"schedule": "cosine"},
            "regularizers": "none",
            "batch_size": 4096,
            "epochs": 1,
        }
        began = time.perf_counter()
        done = train(
            TrainConfig.model_validate(settings),
            Placement(storage_path=f"{folder}/runs"),
            TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
        )
        seconds = time.perf_counter() - began
        sampler.ended.set()
        sampler.join()
        spilled = _spilled()
        ray.shutdown()
    print(f"one epoch of {done.cost.examples:,.0f} examples, {seconds:.0f} s in all, RMSE {done.test['rmse']:.3f}")
    for role, values in sampler.found.items():
        thirds = [max(part) for part in np.array_split(values, 3)]
        print(f"{role}: at most {', '.join(f'{one:,.0f}' for one in thirds)} MiB in the thirds of the training")
    print(f"spilled to disk: {spilled}")


def _spilled() -> str:
    from ray._private.internal_api import memory_summary

    return next((line for line in memory_summary(stats_only=True).splitlines() if "Spilled" in line), "nothing")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory"])
    parser.add_argument("--data", default="data/cifar10", help="an image folder or a Parquet file")
    parser.add_argument("--target", help="column of a table")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--steps", type=int, default=60, help="in a round")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--gib", type=float, default=2.0, help="of the table, in memory")
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.gib)
    else:
        throughput(given.data, given.model, given.batch_size, given.steps, given.rounds, given.target)
