"""torchvision's datasets, read as whole arrays."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.inputs import Array
from crossreg.services.data.raw import Raw

__all__ = ["VISION", "load_vision"]

VISION = {
    "cifar10": "60,000 photographs, 32x32 colour, 10 classes (torchvision)",
    "cifar100": "60,000 photographs, 32x32 colour, 100 classes (torchvision)",
    "svhn": "99,289 house-number digits, 32x32 colour, 10 classes (torchvision)",
    "mnist": "70,000 handwritten digits, 28x28 grey, 10 classes (torchvision)",
    "fashion-mnist": "70,000 articles of clothing, 28x28 grey, 10 classes (torchvision)",
}
# torchvision's class, and what it looks for under its root.
_PLACES = {
    "cifar10": ("CIFAR10", "cifar-10-batches-py"),
    "cifar100": ("CIFAR100", "cifar-100-python"),
    "svhn": ("SVHN", "train_32x32.mat"),
    "mnist": ("MNIST", "MNIST/raw"),
    "fashion-mnist": ("FashionMNIST", "FashionMNIST/raw"),
}


def load_vision(name: str, root: Path, *, download: bool) -> Raw:
    """Load one of `VISION`, with its own test split.

    Args:
        name: A key of `VISION`.
        root: The folder that torchvision's own folder lies in, or that folder itself.
        download: Fetch what is missing.

    Raises:
        UserError: Missing or unreadable files, or a failed download.
    """
    _, place = _PLACES[name]
    root = local_path(root, "data root")
    folder = Path(place).parts[0]
    if root.name == folder and root.is_dir():
        root = root.parent
    x, y, classes = _read(name, root, train=True, download=download)
    x_test, y_test, _ = _read(name, root, train=False, download=download)
    return Raw(name, x, y, classes, x_test, y_test, inputs=Array("uint8"))


def _read(name: str, root: Path, *, train: bool, download: bool) -> tuple[np.ndarray, np.ndarray, tuple[str, ...]]:
    from torchvision import datasets

    class_name, place = _PLACES[name]
    which: dict[str, Any] = {"split": "train" if train else "test"} if name == "svhn" else {"train": train}
    where = root.absolute() / place
    try:
        data = getattr(datasets, class_name)(root, download=download, **which)
    # Damaged files and failing networks surface here as almost any exception.
    except Exception as error:
        if download:
            raise UserError(f"{name}: could not download to {root.absolute()} or read it: {error}") from error
        if not where.exists():
            raise UserError(
                f"{name}: not found, looked for {where}; pass --download to fetch it, or --data-root with "
                f"the folder that holds {Path(place).parts[0]}"
            ) from error
        raise UserError(
            f"{name}: incomplete or damaged files at {where} ({error}); remove them and pass --download"
        ) from error
    x, y = np.asarray(data.data), np.asarray(data.labels if name == "svhn" else data.targets, dtype=np.int64)
    if x.ndim == 3:
        x = x[:, None]
    elif name != "svhn":
        # CIFAR comes channels-last, as a view of what was stored channels-first, so this copies nothing.
        x = np.ascontiguousarray(x.transpose(0, 3, 1, 2))
    return x, y, tuple(getattr(data, "classes", [str(digit) for digit in range(10)]))
