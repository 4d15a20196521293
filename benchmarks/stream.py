"""What reading training data from disk costs (`--stream`), in speed and in memory.

*Throughput*: the same training on the same data, in memory and read from disk, in turns within one process of one Ray:
rounds of an epoch alternate, so that ratios hold when the machine's speed drifts. In memory images have been decoded
once, before; from disk they are decoded every epoch, by tasks that share the machine's CPUs with the training. Beside
the time stand the CPU seconds of the worker and of all tasks. Where other programs take CPUs at times, the fastest
rounds say most.

*Memory*: a Parquet file larger than Ray's object store, which is limited to 200 MB, is written and trained on for one
epoch, while the memory that is each process's own, and what is in the object store, are sampled. Thirds of the run
stand beside each other: what grows with the data would show.

    python -m benchmarks.stream throughput --data data/cifar10 --limit 10000 --model cnn --rounds 4
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
COLUMNS = 100
GROUP = 20_000


def throughput(data: str, model: str, batch_size: int, limit: int | None, rounds: int, target: str | None) -> None:
    """Print examples a second and CPU seconds, in memory and from disk, and their ratios."""
    import ray

    from crossreg.services.training.config import Placement
    from crossreg.services.training.runtime import available_cpus, start_ray

    start_ray(Placement(), reading=True)
    cpus = available_cpus()
    settings = {
        "model": model,
        "data": {"name": str(Path(data).resolve()), "target": target, "limit": limit},
        "optimizer": {"schedule": "cosine"},
        "regularizers": "none",
        "batch_size": batch_size,
        "steps": 10**6,
        "evaluations": 1,
    }

    @ray.remote(num_cpus=cpus)  # as a worker of a training has them
    def measure() -> dict[str, list[tuple[float, float]]]:
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
        found: dict[str, list[tuple[float, float]]] = {name: [] for name in trainers}
        for place in range(1, rounds + 1):
            for name, trainer in trainers.items():
                spent, began = _cpu_seconds(), time.perf_counter()
                epoch = len(trainer.train)
                trainer.advance(place * epoch)
                seconds = time.perf_counter() - began
                found[name].append((epoch * batch_size / seconds, (_cpu_seconds() - spent) / epoch / batch_size))
        return found

    found = ray.get(measure.remote())
    for name, values in found.items():
        print(
            f"{name}: {', '.join(f'{rate:,.0f}' for rate, _ in values)} examples/s, "
            f"{', '.join(f'{1000 * cpu:.2f}' for _, cpu in values)} CPU ms an example"
        )
    ratios = [(disk[0] / memory[0], memory[1] / disk[1]) for memory, disk in zip(*found.values(), strict=True)]
    for place, what in enumerate(("examples/s", "examples a CPU second")):
        those = [one[place] for one in ratios]
        said = ", ".join(f"{one:.2f}" for one in those)
        print(f"{what}, from disk / in memory: {said}; median {statistics.median(those):.2f}")
    fastest = {name: max(rate for rate, _ in values) for name, values in found.items()}
    print(f"fastest rounds: {fastest['disk'] / fastest['memory']:.2f}")


def _cpu_seconds() -> float:
    """Return the CPU seconds that this worker and its siblings, which read, have taken."""
    found = 0.0
    for process in psutil.Process(os.getppid()).children(recursive=True):
        try:
            times = process.cpu_times()
        except psutil.Error:
            continue
        found += times.user + times.system
    return found


def write_table(path: Path, gib: float) -> int:
    """Write columns of random numbers, 8 bytes each, in row groups; return the number of rows."""
    import pyarrow as pa
    from pyarrow import parquet

    rows = int(gib * 2**30 / (8 * (COLUMNS + 1)) // GROUP * GROUP)
    rng = np.random.default_rng(0)
    weights = rng.normal(size=COLUMNS)
    names = [*(f"x{place:03}" for place in range(COLUMNS)), "y"]
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
            "model_options": {"hidden": 32, "depth": 1, "linear_skip": False},
            "data": {"name": str(path), "target": "y", "stream": True},
            "optimizer": {"schedule": "cosine"},
            "regularizers": "none",
            "batch_size": 8192,
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
    import ray
    from ray._private.internal_api import memory_summary

    said = memory_summary(ray.get_runtime_context().gcs_address, stats_only=True)
    return next((line for line in said.splitlines() if "Spilled" in line), "nothing")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", choices=["throughput", "memory"])
    parser.add_argument("--data", default="data/cifar10", help="an image folder or a Parquet file")
    parser.add_argument("--target", help="column of a table")
    parser.add_argument("--model", default="cnn")
    parser.add_argument("--batch-size", type=int, default=128)
    parser.add_argument("--limit", type=int, help="training examples")
    parser.add_argument("--rounds", type=int, default=4, help="epochs of each")
    parser.add_argument("--gib", type=float, default=2.0, help="of the table, in memory")
    given = parser.parse_args()
    if given.what == "memory":
        memory(given.gib)
    else:
        throughput(given.data, given.model, given.batch_size, given.limit, given.rounds, given.target)
