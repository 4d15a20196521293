"""Image folders: one folder of images per class, optionally under train/ and test/."""

from __future__ import annotations

import hashlib
import os
import stat
from pathlib import Path

import numpy as np

from crossreg.core.errors import UserError
from services.data.cache import read_cached, write_cached
from services.data.decode import REFUSED, Progress, decode
from services.data.raw import Raw

__all__ = ["load_images"]

TEST_FOLDERS = ("test", "val")


def load_images(folder: Path, progress: Progress | None = None) -> Raw:
    """Load every image below the class folders.

    Args:
        folder: Holds class folders, or train/ and test/ (or val/) that hold class folders.
        progress: Called with (images done, images in all) from the calling thread.

    Raises:
        UserError: No classes or images, classes only in the test split, unreadable images or unequal sizes.
    """
    train_folder, test_folder = _parts(folder)
    train = _scan(train_folder)
    test = _scan(test_folder) if test_folder is not None else {}
    classes = tuple(train)
    if unknown := [name for name in test if name not in train]:
        raise UserError(f"{test_folder}: class {unknown[0]!r} is not in {train_folder} ({', '.join(classes[:20])})")
    files = [file for part in (train, test) for members in part.values() for file in members]
    images = _images(folder, files, progress)
    y, y_test = (
        np.array([index for index, name in enumerate(classes) for _ in part.get(name, ())], dtype=np.int64)
        for part in (train, test)
    )
    if not test:
        return Raw(str(folder), images, y, classes)
    return Raw(str(folder), images[: len(y)], y, classes, images[len(y) :].copy(), y_test)


def _parts(folder: Path) -> tuple[Path, Path | None]:
    train = folder / "train"
    # A class may itself be called train; then it holds images, not class folders.
    if not train.is_dir() or not _subfolders(train):
        return folder, None
    return train, next((folder / name for name in TEST_FOLDERS if (folder / name).is_dir()), None)


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _scan(folder: Path) -> dict[str, list[str]]:
    """Return the image files of each class, both in sorted order, which fixes the rows of the dataset."""
    suffixes = _suffixes()
    found = {}
    for subfolder in _subfolders(folder):
        # os.walk and strings, not rglob and Path: several times faster on tens of thousands of files.
        found[subfolder.name] = sorted(
            f"{where}{os.sep}{name}"
            for where, _, names in os.walk(subfolder, followlinks=True)
            for name in names
            if os.path.splitext(name)[1].lower() in suffixes and not name.startswith(".")  # noqa: PTH122
        )
        if not found[subfolder.name]:
            raise UserError(f"{subfolder}: the class folder holds no image; add some or remove the folder")
    if not found:
        raise UserError(f"{folder}: no class folders; below it, images lie at CLASS/IMAGE.png")
    return found


def _suffixes() -> set[str]:
    from PIL import Image

    return {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN.keys() - REFUSED}


def _images(folder: Path, files: list[str], progress: Progress | None) -> np.ndarray:
    try:
        key = _key(folder, files)
    except OSError as error:
        raise UserError(f"{error.filename}: the file cannot be read ({error.strerror}); remove it") from error
    images = read_cached(key)
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(files):
        images = decode(files, progress)
        write_cached(key, images)
    elif progress is not None:
        progress(len(files), len(files))
    return images


def _key(folder: Path, files: list[str]) -> str:
    from PIL import __version__ as pillow

    # The folder counts too: two datasets may agree in names, sizes and times, as archives of bitmaps do.
    # So does Pillow, whose decoders may differ in the last bit from one version to another.
    digest = hashlib.sha256(os.fsencode(f"1 {pillow} {folder.resolve()}"))
    prefix = str(folder)
    for file in files:
        status = os.stat(file)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for its writer
            raise UserError(f"{file}: is not a file; remove it")
        digest.update(os.fsencode(file.removeprefix(prefix)))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
