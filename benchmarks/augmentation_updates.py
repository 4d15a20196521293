"""How large should the batch of an update of learned augmentation be, and how often should one come?

Real trainings with planted shifts and rotations, by one unrolled step: the table in `docs/results/augmentation.md`.
A row is a batch and an interval, with what was learned of each planted magnitude for every seed, and test accuracy.

    python -m benchmarks.augmentation_updates --data-root path/to/data
"""

from __future__ import annotations

import argparse
import statistics
from concurrent.futures import ProcessPoolExecutor
from functools import partial
from itertools import product
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import torch

from crossreg.services.data import DataConfig
from crossreg.studies.augmentation.problem import load_pictures, planted, train

UPDATES = ((128, 6), (512, 6), (512, 15), (512, 30))
PLANTED: tuple[dict[str, float], ...] = ({"shift": 4.0}, {"rotation": 30.0}, {})
START = {"shift": 1.0, "rotation": 5.0}


def one(data: DataConfig, case: tuple[tuple[int, int], dict[str, float], int]) -> dict[str, Any]:
    (batch, every), what, seed = case
    pictures = planted(load_pictures(data, seed), seed, **what)
    return train(pictures, START, "unrolled, 1 step", seed, update_every=every, update_batch=batch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", default="fashion-mnist")
    parser.add_argument("--data-root", type=Path, default=Path("data"))
    parser.add_argument("--limit", type=int, default=2000)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2, help="processes, of one core each")
    arguments = parser.parse_args()
    data = DataConfig(name=arguments.data, root=arguments.data_root, limit=arguments.limit)
    cases = list(product(UPDATES, PLANTED, range(arguments.seeds)))
    with ProcessPoolExecutor(arguments.workers, get_context("spawn"), torch.set_num_threads, (1,)) as pool:
        results = pool.map(partial(one, data), cases)
        for (batch, every), what in product(UPDATES, PLANTED):
            mine = [next(results) for _ in range(arguments.seeds)]
            learned = (
                f"{name} " + ", ".join(f"{result['magnitudes'][name]:.2g}" for result in mine) for name in what or START
            )
            accuracy = statistics.mean(result["test"] for result in mine)
            print(f"{batch} every {every}, planted {what or 'nothing'}: {'; '.join(learned)}; test {accuracy:.1f} %")


if __name__ == "__main__":
    main()
