"""A training step in a thread, as in Ray's workers, before and after glibc is told to keep what is freed.

Each in a process of its own, in turns: milliseconds and page faults a step, the kernel's share of the time, and the
peak memory of the process.

    python -m benchmarks.allocator
"""

from __future__ import annotations

import argparse
import json
import resource
import statistics
import subprocess
import sys
import threading
import time

import torch
import torch.nn.functional as F

from crossreg.models import build
from crossreg.services.training.allocator import keep_freed_memory

ROWS, ROUNDS = 128, 3
SCENES: dict[str, tuple[tuple[int, ...], int]] = {"mlp": ((784,), 150), "cnn": ((3, 32, 32), 15)}


def measure(model: str) -> dict[str, float]:
    """Return the costs of a step of this process.

    Args:
        model: one of `SCENES`.
    """
    shape, steps = SCENES[model]
    torch.manual_seed(0)
    network = build(model, input_shape=shape, num_outputs=10)
    x, y = torch.randn(ROWS, *shape), torch.randint(0, 10, (ROWS,))
    if len(shape) == 3:
        network, x = (one.to(memory_format=torch.channels_last) for one in (network, x))  # type: ignore[call-overload]
    optimizer = torch.optim.AdamW(network.parameters())

    def train(number: int) -> None:
        for _ in range(number):
            F.cross_entropy(network(x), y).backward()
            optimizer.step()
            optimizer.zero_grad()

    train(3)
    before, began = resource.getrusage(resource.RUSAGE_SELF), time.perf_counter()
    train(steps)
    seconds, after = time.perf_counter() - began, resource.getrusage(resource.RUSAGE_SELF)
    return {
        "ms": 1e3 * seconds / steps,
        "faults": (after.ru_minflt - before.ru_minflt) / steps,
        "kernel": (after.ru_stime - before.ru_stime) / seconds,
        "MiB": after.ru_maxrss / 1024,
    }


def _in_a_process(model: str, keep: bool) -> dict[str, float]:
    arguments = [sys.executable, "-m", "benchmarks.allocator", "--one", model, *(["--keep"] if keep else [])]
    found: dict[str, float] = json.loads(subprocess.run(arguments, capture_output=True, check=True).stdout)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--one", choices=SCENES, help=argparse.SUPPRESS)
    parser.add_argument("--keep", action="store_true", help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.one:
        torch.set_num_threads(1)
        if arguments.keep:
            keep_freed_memory()
        thread = threading.Thread(target=lambda: print(json.dumps(measure(arguments.one))))
        thread.start()
        thread.join()
        return
    print("| | ms a step | page faults a step | share of the kernel | peak memory, MiB |\n|---|---|---|---|---|")
    for model in SCENES:
        rounds = [[_in_a_process(model, keep) for keep in (False, True)] for _ in range(ROUNDS)]
        for place, name in enumerate((f"`{model}`, glibc's defaults", "kept")):
            found = [pair[place] for pair in rounds]
            ms, faults, kernel, mib = (statistics.median(one[key] for one in found) for key in found[0])
            print(f"| {name} | {ms:.1f} | {faults:,.0f} | {kernel:.1%} | {mib:,.0f} |")


if __name__ == "__main__":
    main()
