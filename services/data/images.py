"""Image folders: one folder of images per class, optionally under train/ and test/."""

from __future__ import annotations

import hashlib
import os
import stat
from collections import Counter
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from crossreg.core.errors import UserError
from crossreg.inputs import Array
from crossreg.services.data.cache import read_cached, write_cached
from crossreg.services.data.decode import REFUSED, Progress, decode
from crossreg.services.data.raw import Raw

__all__ = ["Listed", "image_files", "list_images", "load_images"]

TRAIN_FOLDERS = {"train", "training"}
TEST_FOLDERS = {"test", "testing"}
VALID_FOLDERS = {"val", "valid", "validation", "dev"}


@dataclass(frozen=True, eq=False)
class Listed:
    """What an image folder holds, before anything is decoded.

    Attributes:
        classes: names, in order.
        files: to train on, those held out behind the others.
        y: int64, their class indices.
        own_reg: rows of those held out; None where the folder holds none out.
        test_files: None where there is no test folder.
        y_test: their class indices.
        notes: what was left out, in sentences.
        skipped: files that are no images, by ending.
    """

    classes: tuple[str, ...]
    files: list[str]
    y: np.ndarray
    own_reg: np.ndarray | None
    test_files: list[str] | None
    y_test: np.ndarray | None
    notes: list[str]
    skipped: dict[str, int]


def list_images(folder: Path) -> Listed:
    """Return every image below the class folders, see `load_images`.

    Raises:
        UserError: no classes or images, or classes only in the test split.
    """
    notes: list[str] = []
    skipped: Counter[str] = Counter()
    parts = {role: _scan(place, skipped) for role, place in _parts(folder, notes).items()}
    train = parts["train"]
    classes = tuple(train)
    for role, part in parts.items():
        if unknown := [name for name in part if name not in train]:
            raise UserError(
                f"{folder}: class {unknown[0]!r} of the {role} split is not in training ({', '.join(classes[:20])})"
            )
    files = {role: [file for members in part.values() for file in members] for role, part in parts.items()}
    ys = {
        role: np.array([index for index, name in enumerate(classes) for _ in part.get(name, ())], dtype=np.int64)
        for role, part in parts.items()
    }
    y = np.concatenate([ys["train"], ys.get("reg", np.empty(0, np.int64))])
    held_out = np.arange(len(ys["train"]), len(y)) if "reg" in ys else None
    own = files["train"] + files.get("reg", [])
    notes += _said(skipped)
    return Listed(classes, own, y, held_out, files.get("test"), ys.get("test"), notes, dict(skipped))


def load_images(folder: Path, image_size: int | None = None, progress: Progress | None = None) -> Raw:
    """Load every image below the class folders.

    Args:
        folder: Holds class folders; or train/ and test/ that hold class folders, and val/ with examples that are held
            out, or tested on where there is no test/.
        image_size: Height and width that images are brought to; None where they must have one size.
        progress: Called with (images done, images in all) from the calling thread.

    Raises:
        UserError: No classes or images, classes only in the test split, unreadable images or unequal sizes.
    """
    found = list_images(folder)
    own, tested = len(found.files), found.test_files is not None
    images = _images(folder, found.files + (found.test_files or []), image_size, progress)
    return Raw(
        str(folder), images[:own], found.y, found.classes,
        images[own:].copy() if tested else None, found.y_test,
        inputs=Array("uint8", resize=image_size is not None), own_reg=found.own_reg, notes=found.notes,
        skipped=found.skipped,
    )  # fmt: skip


def _parts(folder: Path, notes: list[str]) -> dict[str, Path]:
    """Return the folders of class folders by what they are for: train, and where they are there reg and test."""
    roles = (("train", TRAIN_FOLDERS), ("reg", VALID_FOLDERS), ("test", TEST_FOLDERS))
    found: dict[str, list[Path]] = {role: [] for role, _ in roles}
    others = []
    for place in _subfolders(folder):
        role = next((role for role, names in roles if place.name.lower() in names), None)
        # a class may itself be called train; then it holds images, not class folders
        if role is not None and _subfolders(place):
            found[role].append(place)
        else:
            others.append(place.name)
    if several := next((places for places in found.values() if len(places) > 1), None):
        raise UserError(f"{folder}: {several[0].name} and {several[1].name} are for the same split; keep one of them")
    parts = {role: places[0] for role, places in found.items() if places}
    if not parts:
        return {"train": folder}
    if "train" not in parts:
        given = ", ".join(place.name for place in parts.values())
        raise UserError(
            f"{folder}: has {given}, which hold class folders, but no train folder beside them; name it train"
        )
    if others:
        notes.append(f"folders beside {parts['train'].name} that are not read: {', '.join(others[:5])}")
    if "reg" in parts and "test" not in parts:
        notes.append(f"{parts['reg'].name} is the test split, for there is no other")
        parts["test"] = parts.pop("reg")
    return {role: parts[role] for role in ("train", "reg", "test") if role in parts}


def _subfolders(folder: Path) -> list[Path]:
    try:
        return sorted(entry for entry in folder.iterdir() if entry.is_dir() and not _is_hidden(entry.name))
    except OSError as error:
        raise UserError(f"{folder}: the folder cannot be read ({error.strerror})") from error


def _is_hidden(name: str) -> bool:
    """Say whether a name is one that programs leave beside files: .ipynb_checkpoints, __MACOSX."""
    return name.startswith(".") or name == "__MACOSX"


def _scan(folder: Path, skipped: Counter[str]) -> dict[str, list[str]]:
    """Return the image files of each class, both in sorted order, which fixes the rows of the dataset."""
    found = {}
    for subfolder in _subfolders(folder):
        before = skipped.total()
        found[subfolder.name] = files = _below(subfolder, skipped)
        if not files:
            others = f" ({skipped.total() - before} files of other kinds)" if skipped.total() > before else ""
            raise UserError(f"{subfolder}: the class folder holds no image{others}; add some or remove the folder")
    if not found:
        raise UserError(f"{folder}: no class folders; below it, images lie at CLASS/IMAGE.png")
    return found


def image_files(folder: Path, notes: list[str]) -> list[str]:
    """Return all image files below a folder, sorted; what is skipped is noted."""
    skipped: Counter[str] = Counter()
    files = _below(folder, skipped)
    notes += _said(skipped)
    return files


def _below(folder: Path, skipped: Counter[str]) -> list[str]:
    suffixes = _suffixes()
    files = []
    # os.walk and strings, not rglob and Path: several times faster on tens of thousands of files.
    for where, folders, names in os.walk(folder, followlinks=True):
        folders[:] = [name for name in folders if not _is_hidden(name)]
        for name in names:
            if _is_hidden(name) or name in _NO_DATA:
                continue
            ending = os.path.splitext(name)[1].lower()  # noqa: PTH122
            if ending in suffixes:
                files.append(f"{where}{os.sep}{name}")
            else:
                skipped[ending or "without an ending"] += 1
    return sorted(files)


def _said(skipped: Counter[str]) -> list[str]:
    if not skipped:
        return []
    endings = ", ".join(f"{count:,} {ending}" for ending, count in skipped.most_common(5))
    return [f"{skipped.total():,} files are no images that can be read, and were skipped: {endings}"]


_NO_DATA = {"Thumbs.db", "desktop.ini"}  # of Windows


def _suffixes() -> set[str]:
    from PIL import Image

    return {suffix for suffix, name in Image.registered_extensions().items() if name in Image.OPEN.keys() - REFUSED}


def _images(folder: Path, files: list[str], image_size: int | None, progress: Progress | None) -> np.ndarray:
    try:
        key = _key(folder, files, image_size)
    except OSError as error:
        raise UserError(f"{error.filename}: the file cannot be read ({error.strerror}); remove it") from error
    images = read_cached(key)
    if images is None or images.dtype != np.uint8 or images.ndim != 4 or len(images) != len(files):
        images = decode(files, image_size, progress)
        write_cached(key, images)
    elif progress is not None:
        progress(len(files), len(files))
    return images


def _key(folder: Path, files: list[str], image_size: int | None) -> str:
    from PIL import __version__ as pillow

    # The folder counts too: two datasets may agree in names, sizes and times, as archives of bitmaps do.
    # So does Pillow, whose decoders may differ in the last bit from one version to another.
    digest = hashlib.sha256(os.fsencode(f"2 {pillow} {image_size} {folder.resolve()}"))
    prefix = str(folder)
    for file in files:
        status = os.stat(file)  # noqa: PTH116
        if not stat.S_ISREG(status.st_mode):  # reading a pipe would wait for its writer
            raise UserError(f"{file}: is not a file; remove it")
        digest.update(os.fsencode(file.removeprefix(prefix)))
        digest.update(f"\0{status.st_size}\0{status.st_mtime_ns}\n".encode())
    return digest.hexdigest()[:32]
