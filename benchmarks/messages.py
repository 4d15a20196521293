"""What processes that train together send one another, and what that comes to with many of them.

Bytes are counted on the objects themselves: the gradient and the buffers that DDP sends in every step, the one message
of an update of rho, what rank 0 tells the driver. How long an all-reduce takes is measured between processes on this
machine and fitted by `latency + bytes / bandwidth`. The model for N processes is that of a ring, or of a tree where
that is quicker (Thakur, Rabenseifner, Gropp 2005); neither overlaps with the backward pass, as DDP's do:

    ring    2 (N - 1) latency + 2 (N - 1) / N bytes / bandwidth
    tree    2 log2(N) (latency + bytes / bandwidth)

    python -m benchmarks.messages --latency 20e-6 --bandwidth 12.5e9
"""

from __future__ import annotations

import argparse
import io
import math
import pickle
import socket
import statistics
import time
from typing import Any

import torch
import torch.distributed as dist
import torch.multiprocessing as mp

from benchmarks.rho_step import INTERVAL, SHAPES
from crossreg import CrossRegularizer, inject_noise
from crossreg.models import build
from crossreg.services.training.messages import Metrics, Progress

MODELS = ("mlp", "cnn", "resnet18")
SIZES = (64, 1 << 12, 1 << 16, 1 << 20, 1 << 22, 1 << 24)
WORLDS = (2, 8, 64, 1000)


def sizes(name: str) -> dict[str, int]:
    """Return the bytes of each message of a training."""
    shape = SHAPES.get(name, (3, 32, 32))
    model = inject_noise(build(name, input_shape=shape, num_outputs=10))
    x, y = torch.randn(4, *shape), torch.zeros(4, dtype=torch.int64)
    regularizer = CrossRegularizer(model, "classification", [(x, y)])
    rho = sum(one.numel() for one in regularizer.rho.values())
    values = {"train/loss": 1.0, "train/accuracy": 0.5, "epoch": 1.0, "lr": 1e-3}
    learned = {f"regularizers/{key}": 1.0 for key in regularizer.hyperparameters} | {"reg/loss": 1.0}
    checkpoint = io.BytesIO()
    optimizer = torch.optim.AdamW(regularizer.theta)
    model(x).sum().backward()
    optimizer.step()
    torch.save({"model": model.state_dict(), "optimizer": optimizer.state_dict()}, checkpoint)
    return {
        "gradient": sum(p.numel() * p.element_size() for p in regularizer.theta),
        "buffers": sum(b.numel() * b.element_size() for b in model.buffers()),
        # loss, gradients, and two counts to weigh ranks by
        "rho": 4 * (rho + 3),
        "metrics": len(pickle.dumps([Metrics(1, 1, values), Progress(1, 1.0, 1, 1, 1.0)])),
        "metrics with rho": len(pickle.dumps([Metrics(1, 1, {**values, **learned}), Progress(1, 1.0, 1, 1, 1.0)])),
        "checkpoint": checkpoint.tell(),
    }


def _reduce(rank: int, world: int, port: int, out: Any) -> None:
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"tcp://127.0.0.1:{port}", rank=rank, world_size=world)
    found = []
    for size in SIZES:
        data, times = torch.zeros(size // 4), []
        for _ in range(3 if size > 1 << 20 else 30):
            dist.barrier()
            began = time.perf_counter()
            dist.all_reduce(data)
            times.append(time.perf_counter() - began)
        found.append(statistics.median(times))
    if rank == 0:
        out.put(found)
    dist.barrier()
    dist.destroy_process_group()


def all_reduce(world: int) -> list[float]:
    """Return the median seconds of an all-reduce of each of `SIZES` bytes, between processes of this machine."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    out = mp.get_context("spawn").SimpleQueue()
    mp.spawn(_reduce, (world, port, out), nprocs=world)
    found: list[float] = out.get()
    return found


def fitted(times: list[float]) -> tuple[float, float]:
    """Return latency in seconds and bandwidth in bytes a second, by the smallest and the largest message."""
    return times[0], (SIZES[-1] - SIZES[0]) / (times[-1] - times[0])


def seconds(world: int, size: float, latency: float, bandwidth: float) -> float:
    """Return what an all-reduce takes by the model, the quicker of ring and tree.

    Args:
        world: processes.
        size: bytes.
        latency: seconds of a message.
        bandwidth: bytes a second.
    """
    ring = 2 * (world - 1) * latency + 2 * (world - 1) / world * size / bandwidth
    tree = 2 * math.log2(world) * (latency + size / bandwidth)
    return min(ring, tree)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--latency", type=float, default=20e-6, help="seconds of a message between two machines")
    parser.add_argument("--bandwidth", type=float, default=12.5e9, help="bytes a second of each machine's link")
    a = parser.parse_args()
    print("| bytes | " + " | ".join(MODELS) + " |\n|---" + "|---" * len(MODELS) + "|")
    counted = {name: sizes(name) for name in MODELS}
    for message in counted[MODELS[0]]:
        print(f"| {message} | " + " | ".join(f"{counted[name][message]:,}" for name in MODELS) + " |")
    times = all_reduce(2)
    latency, bandwidth = fitted(times)
    print(f"\nmeasured between two processes here (gloo): latency {1e6 * latency:.0f} us, {bandwidth / 1e9:.2f} GB/s")
    print("\n| all-reduce, bytes | measured, ms | by the fit, ms |\n|---|---|---|")
    for size, taken in zip(SIZES, times, strict=True):
        print(f"| {size:,} | {1e3 * taken:.3f} | {1e3 * (latency + size / bandwidth):.3f} |")
    print(f"\nby the model, at {1e6 * a.latency:g} us and {a.bandwidth / 1e9:g} GB/s, ms a step")
    print(
        "| processes | "
        + " | ".join(f"{name}: gradient, rho" for name in MODELS)
        + " |\n|---"
        + "|---" * len(MODELS)
        + "|"
    )
    for world in WORLDS:
        cells = []
        for name in MODELS:
            gradient = seconds(world, counted[name]["gradient"], a.latency, a.bandwidth)
            rho = seconds(world, counted[name]["rho"], a.latency, a.bandwidth) / INTERVAL
            cells.append(f"{1e3 * gradient:.2f}, {1e3 * rho:.4f}")
        print(f"| {world} | " + " | ".join(cells) + " |")


if __name__ == "__main__":
    main()
