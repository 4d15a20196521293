"""NumPy files: an .npz with x and y, or x.npy with y.npy beside it."""

from __future__ import annotations

import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import IO, Any

import numpy as np
from numpy.lib import format as npy

from crossreg.core.errors import UserError
from crossreg.inputs import Array, Sequence
from crossreg.inputs.array import Layout, narrowed
from crossreg.inputs.columns import offset_of
from crossreg.services.data.config import KEYS, DataConfig
from crossreg.services.data.dataset import Task
from crossreg.services.data.memory import require_memory
from crossreg.services.data.raw import Raw, require_finite
from crossreg.services.data.sequences import sequences_of
from crossreg.services.data.targets import read_targets

__all__ = ["arrays_of", "load_arrays", "read_arrays"]

CHANNELS = (1, 3, 4)
SMALLEST_IMAGE = 8  # pixels
MOST_EXACT = 2**53


def load_arrays(path: Path, config: DataConfig) -> Raw:
    """Load x, y and, where present, x_test and y_test.

    Four axes are images, channels first or last, and so are three of bytes; three of other numbers are sequences, see
    `crossreg.services.data.sequences`. Whole numbers of other shapes stay whole, and all else becomes float32. What y
    is, `crossreg.services.data.targets` says.

    Args:
        path: An .npz, or a file named x.npy whose neighbours are y.npy, x_test.npy and y_test.npy.
        config: Names of the arrays, the task, and the array to split by.

    Raises:
        UserError: Missing or unreadable arrays, object arrays, or shapes and dtypes that cannot be used.
    """
    return arrays_of(str(path), _read(path, _wanted(config)), config, may_rename=path.suffix.lower() == ".npz")


def _wanted(config: DataConfig) -> list[str]:
    """Return the names of the arrays that are read."""
    by = config.split_by or config.time_order
    return [*(config.keys.get(key, key) for key in KEYS), *([by, f"{by}_test"] if by else [])]


def arrays_of(source: str, given: dict[str, np.ndarray], config: DataConfig, *, may_rename: bool = True) -> Raw:
    """Return what arrays hold, see `load_arrays`.

    Args:
        source: what messages call them.
        given: by name; those that are not asked for may be empty.
        config: as of `load_arrays`.
        may_rename: whether messages name `--keys`.
    """
    keys, wanted = {key: config.keys.get(key, key) for key in KEYS}, _wanted(config)
    listed = ", ".join(sorted(given)) or "nothing"
    found = {key: given[name] for key, name in keys.items() if name in given}
    for key in ("x", "y"):
        if key not in found:
            raise UserError(
                f"{source}: no array {keys[key]!r}; needed are x and y, optional x_test and y_test; found {listed}"
                + ("; other names are given as --keys x=NAME,y=NAME" if may_rename else "")
            )
    if ("x_test" in found) != ("y_test" in found):
        raise UserError(f"{source}: x_test and y_test come together or not at all; found {listed}")
    sequences = _are_sequences(found["x"], config)
    notes = _left(source, given, set(wanted) if sequences else set(wanted) - {keys["lengths"], keys["lengths_test"]})
    inputs, arrays = (_sequences if sequences else _plain)(source, found, config, notes)
    targets = [_targets(source, key, found[key], config.task) for key in ("y", "y_test") if key in found]
    if len({target.dtype.kind in "bU" for target in targets}) > 1:
        kinds = f"y is {found['y'].dtype} and y_test is {found['y_test'].dtype}"
        raise UserError(f"{source}: {kinds}; both must be classes (integers, text) or both quantities (floats)")
    classes, (y, *y_test) = read_targets(source, keys["y"], targets, config.task, notes, integers_are_classes=True)
    groups, order = _splitting(source, config, given, len(found["y"]))
    return Raw(
        source, arrays["x"], y, classes, arrays.get("x_test"), y_test[0] if y_test else None, inputs=inputs,
        example=found["x"][:2].copy(), groups=groups, order=order, notes=notes,
    )  # fmt: skip


def _are_sequences(x: np.ndarray, config: DataConfig) -> bool:
    """Say whether examples are sequences: those of two axes that are no images of bytes, and what is said to be."""
    return config.time_axis is not None or (x.ndim == 3 and x.dtype != np.uint8)


def _plain(
    source: str, found: dict[str, np.ndarray], config: DataConfig, notes: list[str]
) -> tuple[Array, dict[str, np.ndarray]]:
    inputs = _inputs_of(source, found["x"], notes)
    return inputs, {key: _inputs(source, key, found[key], inputs) for key in ("x", "x_test") if key in found}


def _sequences(
    source: str, found: dict[str, np.ndarray], config: DataConfig, notes: list[str]
) -> tuple[Sequence, dict[str, np.ndarray]]:
    x = found["x"]
    if x.ndim == 3 and x.shape[1] == x.shape[2] >= SMALLEST_IMAGE and config.time_axis is None:
        notes.append(
            f"x {x.shape} is not taken as images; if it holds grey ones, store it as {(len(x), 1, *x.shape[1:])}"
        )
    names = {"x": "lengths", "x_test": "lengths_test"}
    lengths: dict[str, np.ndarray] = {key: found[name] for key, name in names.items() if name in found}
    if "x_test" in found and len(lengths) == 1:
        raise UserError(f"{source}: lengths and lengths_test come together or not at all")
    stored: dict[str, np.ndarray] = {key: found[key] for key in ("x", "x_test") if key in found}
    return sequences_of(source, stored, lengths, config.time_axis, notes)


def read_arrays(path: Path, keys: Mapping[str, str]) -> dict[str, np.ndarray]:
    """Return the arrays of a file by what they are: `x`, and where they are there the others of `KEYS`.

    Args:
        path: an .npz, or x.npy with others beside it.
        keys: their names, where they are others.

    Raises:
        UserError: it cannot be read, or has no x.
    """
    names = {key: keys.get(key, key) for key in KEYS}
    given = _read(path, list(names.values()))
    if names["x"] not in given:
        raise UserError(f"{path}: no array {names['x']!r}; found {', '.join(given)}; name it with --keys x=NAME")
    return {key: given[name] for key, name in names.items() if name in given}


def _read(path: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    return _read_npz(path, wanted) if path.suffix.lower() == ".npz" else _read_npy(path, wanted)


def _left(source: str, given: dict[str, np.ndarray], wanted: set[str]) -> list[str]:
    left = sorted(given.keys() - wanted)
    return [f"arrays not read: {', '.join(left)}"] if left else []


def _splitting(
    source: str, config: DataConfig, given: dict[str, np.ndarray], count: int
) -> tuple[np.ndarray | None, np.ndarray | None]:
    """Return the array that splits are made by: groups, or an order."""
    name = config.split_by or config.time_order
    if name is None:
        return None, None
    if name not in given:
        raise UserError(f"{source}: no array {name!r} to split by; found {', '.join(sorted(given))}")
    values, test = given[name], given.get(f"{name}_test")
    if values.shape != (count,):
        raise UserError(
            f"{source}: {name} has shape {values.shape}; to split by it, one value for each of {count} rows is needed"
        )
    if config.split_by is not None:
        if test is not None and (shared := np.intersect1d(values.astype(str), test.astype(str))).size:
            raise UserError(
                f"{source}: {name!r} {str(shared[0])!r} is in the test split and in training ({shared.size} such)"
            )
        return values, None
    if values.dtype.kind not in "iufM":
        raise UserError(f"{source}: {name} has dtype {values.dtype}; numbers or dates are needed to order by")
    order = values.astype("datetime64[us]").astype(np.int64) if values.dtype.kind == "M" else values
    require_finite(source, name, order)
    if test is not None and test.dtype.kind == values.dtype.kind and len(test) and test.min() <= values.max():
        raise UserError(
            f"{source}: the test split begins with {name} {test.min()}, and training ends with {values.max()}; where "
            "data bring a test split, it must come last for --time-order"
        )
    return None, order.astype(np.float64)


def _read_npz(path: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    _check_archive(path, wanted)
    content = _load(path)
    if isinstance(content, np.ndarray):
        raise UserError(f"{path}: holds a single array; an .npz made by numpy.savez(path, x=..., y=...) is needed")
    with content:
        found = {}
        for key in content.files:
            try:
                # The others are only named in messages, so they are not read.
                found[key] = content[key] if key in wanted else np.empty(0)
            except Exception as error:
                raise _unreadable(f"{path}: {key}", error) from error
            if not isinstance(found[key], np.ndarray):  # numpy hands a member of another kind over as bytes
                raise UserError(f"{path}: {key} is no NumPy array; make the file with numpy.savez(path, x=..., y=...)")
        return found


def _read_npy(path: Path, wanted: list[str]) -> dict[str, np.ndarray]:
    if path.name != "x.npy":
        raise UserError(f"{path}: an array file must be named x.npy, with y.npy beside it; or use an .npz with x and y")
    files = {key: path.parent / f"{key}.npy" for key in wanted}
    for file in filter(Path.is_file, files.values()):
        with file.open("rb") as stream:
            _check_header(str(file), stream, file.stat().st_size)
    return {key: _load(file) for key, file in files.items() if file.is_file()}


def _check_archive(path: Path, wanted: list[str]) -> None:
    try:
        with zipfile.ZipFile(path) as archive:
            for member in archive.infolist():
                if member.filename.removesuffix(".npy") in wanted:
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


def _inputs_of(source: str, x: np.ndarray, notes: list[str]) -> Array:
    """Return what an array of examples is, and say what had to be guessed."""
    if x.dtype.kind not in "buif":
        raise UserError(f"{source}: x has dtype {x.dtype}; allowed are integers, booleans and floating-point numbers")
    if x.ndim == 0:
        raise UserError(f"{source}: x is a single number; one row per example is needed")
    layout: Layout = "as stored"
    if x.ndim == 4 and x.shape[-1] in CHANNELS and x.shape[1] not in CHANNELS:
        layout = "channels last"
        notes.append(f"x {x.shape} is taken as images with channels last")
    elif x.ndim == 1 or (x.dtype == np.uint8 and x.ndim == 3):
        layout = "no channel axis"
    if x.dtype.kind in "iu" and x.size and max(abs(int(x.max())), abs(int(x.min()))) > MOST_EXACT:
        raise UserError(
            f"{source}: x holds {int(x.max())}; whole numbers beyond 2^53, as ids and hashes, cannot be told apart: "
            "leave them out, or store features as floats"
        )
    offset: tuple[float, ...] = ()
    stored = x[:, None] if x.ndim == 1 else x
    if layout != "channels last" and stored.ndim <= 3 and x.dtype.kind in "iuf" and x.dtype.itemsize >= 4 and x.size:
        offsets = [offset_of(stored[:, place].astype(np.float64).ravel()) for place in range(stored.shape[1])]
        if any(offsets):
            offset = tuple(offsets)
            place, count = int(np.argmax(np.abs(offsets))), sum(map(bool, offsets))
            others = f", and others off {count - 1} more columns" if count > 1 else ""
            notes.append(
                f"{offsets[place]:g} is taken off x[:, {place}], whose values float32 cannot tell apart{others}"
            )
    return Array(str(x.dtype), layout, offset)


def _inputs(source: str, key: str, x: np.ndarray, inputs: Array) -> np.ndarray:
    if x.dtype.kind not in "buif" or x.ndim == 0:
        raise UserError(f"{source}: {key} has dtype {x.dtype} and shape {x.shape}; it must be as x is")
    if inputs.layout == "channels last" and x.ndim == 4:
        x = np.moveaxis(x, -1, 1)
    elif inputs.layout == "no channel axis":
        x = x[:, None]
    if inputs.offset and x.shape[1] != len(inputs.offset):
        raise UserError(f"{source}: one example of {key} has shape {x.shape[1:]}, and of x ({len(inputs.offset)},)")
    if x.dtype == np.uint8 and x.ndim < 4:  # bytes that are no images are numbers
        x = x.astype(np.float32)
    return np.ascontiguousarray(narrowed(x, inputs.offset))


def _targets(source: str, key: str, y: np.ndarray, task: Task | None) -> np.ndarray:
    if y.dtype.kind == "S":
        try:
            y = np.char.decode(y, "utf-8")
        except UnicodeDecodeError:
            raise UserError(f"{source}: {key} holds bytes that are no text; store text or integers") from None
    if y.dtype.kind not in "buifU":
        raise UserError(f"{source}: {key} has dtype {y.dtype}; allowed are integers, booleans, text and floats")
    if y.ndim == 2 and y.shape[1] == 1:
        y = y[:, 0]
    if y.dtype.kind != "f" and y.ndim != 1 and not (task == "regression" and y.dtype.kind in "iu" and y.ndim == 2):
        one_hot = y.ndim == 2 and y.dtype.kind in "bui" and bool((y.astype(bool).sum(1) == 1).all())
        remedy = "so pass one-hot rows through argmax" if one_hot else (
            "and several in a row cannot be learned; --task regression takes numbers as quantities")  # fmt: skip
        raise UserError(f"{source}: {key} has shape {y.shape}; classes are [N], {remedy}")
    if y.ndim not in (1, 2):
        raise UserError(f"{source}: {key} has shape {y.shape}; regression targets are [N] or [N, outputs]")
    if y.dtype.kind == "f":
        with np.errstate(over="ignore"):
            large = ~np.isfinite(y.astype(np.float32))
        require_finite(source, key, np.where(large, np.where(np.isnan(y), np.nan, np.copysign(np.inf, y)), y))
    return y
