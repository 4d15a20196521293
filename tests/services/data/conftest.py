"""Real files to load, written below tmp_path."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

WriteImages = Callable[..., np.ndarray]


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "cache"
    monkeypatch.setenv("CROSSREG_CACHE", str(folder))
    return folder


@pytest.fixture
def write_images() -> WriteImages:
    """Write distinct lossless images; return them as [N, C, H, W] in the order they are loaded."""

    def write(folder: Path, classes: dict[str, int], *, grey: bool = False, size: int = 6, seed: int = 0) -> np.ndarray:
        rng = np.random.default_rng(seed)
        images = []
        for name, count in sorted(classes.items()):
            (folder / name).mkdir(parents=True)
            for index in range(count):
                image = rng.integers(0, 256, (size, size) if grey else (size, size, 3), dtype=np.uint8)
                Image.fromarray(image).save(folder / name / f"{index:03}.png")
                images.append(image)
        return np.stack(images)[:, None] if grey else np.stack(images).transpose(0, 3, 1, 2)

    return write


@pytest.fixture
def npz(tmp_path: Path) -> Callable[..., str]:
    """Write an .npz and return its path."""

    def write(**arrays: np.ndarray) -> str:
        path = tmp_path / "data.npz"
        np.savez(path, **arrays)  # type: ignore[arg-type]
        return str(path)

    return write
