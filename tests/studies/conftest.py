from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
import torch


@pytest.fixture(autouse=True)
def _one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a study: more threads wait for one another on small problems
    yield
    torch.set_num_threads(threads)


@pytest.fixture
def squares(tmp_path: Path) -> Path:
    """A root of the paper's experiments in which coloured squares in three classes stand for small CIFAR images."""
    rng = np.random.default_rng(0)
    arrays: dict[str, np.ndarray] = {}
    for suffix, count in (("", 400), ("_test", 40)):
        y = np.arange(count) % 3
        x = rng.integers(0, 100, (count, 16, 16, 3))
        x[np.arange(count), :, :, y] += 100
        arrays |= {f"x{suffix}": x.astype("uint8"), f"y{suffix}": y}
    (tmp_path / "paper").mkdir()
    np.savez(tmp_path / "paper" / "paper-cifar-16.npz", **arrays)  # type: ignore[arg-type]
    return tmp_path
