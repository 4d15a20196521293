"""NumPy files: an .npz with x and y, or x.npy with y.npy beside it."""

from __future__ import annotations

import zipfile
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from crossreg.core.errors import UserError
from services.data.memory import require_memory
from services.data.raw import Raw, encode

__all__ = ["load_arrays"]

KEYS = ("x", "y", "x_test", "y_test")
CHANNELS = (1, 3, 4)


def load_arrays(path: Path) -> Raw:
    """Load x, y and, where present, x_test and y_test.

    uint8 x of three or four axes are images, channels first or last; any other number becomes float32.
    y of integers, booleans or text are classes, of floating-point numbers regression targets.

    Args:
        path: An .npz, or a file named x.npy whose neighbours are y.npy, x_test.npy and y_test.npy.

    Raises:
        UserError: Missing or unreadable arrays, object arrays, or shapes and dtypes that cannot be used.
    """
    source = str(path)
    found = _read_npz(path) if path.suffix.lower() == ".npz" else _read_npy(path)
    listed = ", ".join(sorted(found)) or "nothing"
    for key in ("x", "y"):
        if key not in found:
            raise UserError(
                f"{source}: no array {key!r}; needed are x and y, optional x_test and y_test; found {listed}"
            )
    if ("x_test" in found) != ("y_test" in found):
        raise UserError(f"{source}: x_test and y_test come together or not at all; found {listed}")
    x = _inputs(source, "x", found.pop("x"))
    x_test = _inputs(source, "x_test", found.pop("x_test")) if "x_test" in found else None
    targets = [_targets(source, key, found[key]) for key in ("y", "y_test") if key in found]
    if len({target.dtype.kind == "f" for target in targets}) > 1:
        given = f"y is {found['y'].dtype} and y_test is {found['y_test'].dtype}"
        raise UserError(f"{source}: {given}; both must be classes (integers, text) or both quantities (floats)")
    classes: tuple[str, ...] = ()
    if targets[0].dtype.kind != "f":
        classes, targets = encode(source, *targets)
    return Raw(source, x, targets[0], classes, x_test, targets[1] if len(targets) > 1 else None)


def _read_npz(path: Path) -> dict[str, np.ndarray]:
    _check_archive(path)
    content = _load(path)
    if isinstance(content, np.ndarray):
        raise UserError(f"{path}: holds a single array; an .npz made by numpy.savez(path, x=..., y=...) is needed")
    with content:
        found = {}
        for key in content.files:
            try:
                # The others are only named in messages, so they are not read.
                found[key] = content[key] if key in KEYS else np.empty(0)
            except Exception as error:
                raise _unreadable(f"{path}: {key}", error) from error
            if not isinstance(found[key], np.ndarray):  # numpy hands a member of another kind over as bytes
                raise UserError(f"{path}: {key} is no NumPy array; make the file with numpy.savez(path, x=..., y=...)")
        return found


def _read_npy(path: Path) -> dict[str, np.ndarray]:
    if path.name != "x.npy":
        raise UserError(f"{path}: an array file must be named x.npy, with y.npy beside it; or use an .npz with x and y")
    files = {key: path.parent / f"{key}.npy" for key in KEYS}
    for file in filter(Path.is_file, files.values()):
        with file.open("rb") as stream:
            _check_header(str(file), stream, file.stat().st_size)
    return {key: _load(file) for key, file in files.items() if file.is_file()}


def _check_archive(path: Path) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.removesuffix(".npy") in KEYS:
                    with archive.open(member) as stream:
                        _check_header(f"{path}: {member.filename}", stream, member.file_size)
    except UserError:
        raise
    except Exception:
        return  # numpy says what is wrong with it


def _check_header(what: str, stream: IO[bytes], size: int) -> None:
    """Compare what a header declares with what follows it, before anything of that size is allocated."""
    try:
        version = npy.read_magic(stream)
        read = npy.read_array_header_1_0 if version == (1, 0) else npy.read_array_header_2_0
        shape, _, dtype = read(stream)
        declared = int(np.prod(shape, dtype=object)) * dtype.itemsize
    except Exception:
        return  # numpy says what is wrong with it
    if dtype.hasobject:
        return  # which numpy refuses
    if declared > size:
        raise UserError(f"{what}: declares {shape} of {dtype}, {declared:,} bytes, but holds {size:,}; it is damaged")
    require_memory(what, f"an array {shape} of {dtype}", declared)


def _load(path: Path) -> Any:
    try:
        return np.load(path, allow_pickle=False)
    # A damaged file surfaces as any of a dozen exceptions from numpy, zipfile and zlib.
    except Exception as error:
        raise _unreadable(str(path), error) from error


def _unreadable(what: str, error: Exception) -> UserError:
    if "pickle" in str(error):
        return UserError(f"{what}: holds Python objects or is no NumPy file; only plain numbers or text can be loaded")
    return UserError(f"{what}: cannot be read, the file is damaged or truncated ({error})")


def _inputs(source: str, key: str, x: np.ndarray) -> np.ndarray:
    if x.dtype.kind not in "buif":
        raise UserError(
            f"{source}: {key} has dtype {x.dtype}; allowed are integers, booleans and floating-point numbers"
        )
    if x.ndim == 0:
        raise UserError(f"{source}: {key} is a single number; one row per example is needed")
    if x.dtype == np.uint8 and x.ndim == 3:
        return x[:, None]
    if x.dtype == np.uint8 and x.ndim == 4:
        last = x.shape[-1] in CHANNELS and x.shape[1] not in CHANNELS
        return np.ascontiguousarray(x.transpose(0, 3, 1, 2)) if last else x
    # Too large for float32 becomes infinity, which the check on values then reports with its place.
    with np.errstate(over="ignore"):
        x = x.astype(np.float32, copy=False)
    return x[:, None] if x.ndim == 1 else x


def _targets(source: str, key: str, y: np.ndarray) -> np.ndarray:
    if y.dtype.kind not in "buifU":
        raise UserError(f"{source}: {key} has dtype {y.dtype}; allowed are integers, booleans, text and floats")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind == "f":
        if y.ndim not in (1, 2):
            raise UserError(f"{source}: {key} has shape {y.shape}; regression targets are [N] or [N, outputs]")
        with np.errstate(over="ignore"):
            y = y.astype(np.float32, copy=False)
        return y[:, None] if y.ndim == 1 else y
    if y.ndim != 1:
        raise UserError(f"{source}: {key} has shape {y.shape}; classes are [N], so pass one-hot rows through argmax")
    return y
