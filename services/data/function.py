"""Data of one's own: what a function returns, by the name that it is imported under."""

from __future__ import annotations

import re
import sys
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.core.imports import import_function
from crossreg.services.data.config import DataConfig, require_fitting
from crossreg.services.data.memory import require_memory
from crossreg.services.data.raw import Raw

__all__ = ["is_function", "load_function"]

_NAME = re.compile(r"[^\W\d][\w.]*:[^\W\d][\w.]*")
EXPECTED = (
    "arrays (x, y), a dict of arrays, a dict of splits (train, and reg or test), a pandas DataFrame, a map-style torch "
    "Dataset, or a pair of them, train and test"
)
"""What a function may return."""

Part = tuple[np.ndarray, np.ndarray]


def is_function(name: str) -> bool:
    """Say whether a name is of the form package.module:function."""
    return _NAME.fullmatch(name) is not None


def load_function(config: DataConfig) -> Raw:
    """Call a function without arguments and take what it returns as data.

    Arrays are read as those of an .npz are, a frame as a Parquet file is; a Dataset's items are `(x, y)`, stacked.

    Args:
        config: its `name` is that of the function; the other settings are those of arrays or of tables.

    Raises:
        UserError: it cannot be imported, raises, or returns something else; the exception behind it is chained.
    """
    source = config.name
    function = import_function(source, "data", f"a function without arguments that returns {EXPECTED}")
    try:
        found = function()
    except Exception as error:  # the user's code may raise anything
        raise UserError(f"data {source!r}: the function failed: {type(error).__name__}: {error}") from error
    frame = _is_frame(found)
    require_fitting(config, frame, "functions that return a DataFrame", "target", "drop", "kinds")
    require_fitting(config, not frame, "functions that return arrays", "keys", "time_axis")
    require_fitting(config, False, "image folders", "image_size")
    if frame:
        from crossreg.services.data.tables import table_of, tidied

        return table_of(source, tidied(source, found), config, [])
    return _of_arrays(source, found, config)


def _of_arrays(source: str, found: Any, config: DataConfig) -> Raw:
    """Return what arrays, splits or Datasets hold."""
    from crossreg.services.data.arrays import arrays_of

    if isinstance(found, Mapping) and "train" not in found:
        return arrays_of(source, {str(name): _array(source, str(name), one) for name, one in found.items()}, config)
    parts = _parts(source, found)
    for role, (x, y) in parts.items():
        if len(np.shape(x)) == 0 or len(np.shape(y)) == 0 or len(x) != len(y):
            raise UserError(f"{source}: x of {role} has shape {x.shape} and y {y.shape}; one y an example is needed")
        if x.shape[1:] != parts["train"][0].shape[1:]:
            raise UserError(f"{source}: one example of {role} has shape {x.shape[1:]}, and of train "
                            f"{parts['train'][0].shape[1:]}; they must be equal")  # fmt: skip
    own, held_out = [parts["train"]], None
    if "reg" in parts:
        own.append(parts["reg"])
        held_out = np.arange(len(own[0][0]), len(own[0][0]) + len(own[1][0]))
    x, y = (np.concatenate(those) if len(those) > 1 else those[0] for those in zip(*own, strict=True))
    arrays = {"x": x, "y": y}
    if "test" in parts:
        arrays["x_test"], arrays["y_test"] = parts["test"]
    named = {config.keys.get(name, name): one for name, one in arrays.items()}
    return replace(arrays_of(source, named, config), own_reg=held_out)


def _parts(source: str, found: Any) -> dict[str, Part]:
    """Return x and y of each split: "train", and where they are there "reg" and "test"."""
    if isinstance(found, Mapping):
        if unknown := [str(name) for name in found if name not in ("train", "reg", "test")]:
            raise UserError(f"{source}: the function returned a split {unknown[0]!r}; allowed are train, reg and test")
        return {str(role): _part(source, str(role), one) for role, one in found.items()}
    if isinstance(found, tuple | list) and len(found) == 2 and all(map(_is_dataset, found)):
        return {role: _part(source, role, one) for role, one in zip(("train", "test"), found, strict=True)}
    return {"train": _part(source, "", found)}


def _part(source: str, role: str, found: Any) -> Part:
    """Return x and y of a split, given as a pair of arrays or a Dataset."""
    of = f" of {role}" if role else ""
    if isinstance(found, tuple | list) and len(found) == 2 and not any(_is_frame(one) for one in found):
        x, y = (_array(source, f"{name}{of}", one) for name, one in zip("xy", found, strict=True))
        return x, y
    if _is_dataset(found):
        return _stacked(source, role or "the Dataset", found)
    what = f"{role}, a {type(found).__name__}" if role else f"a {type(found).__name__}"
    if isinstance(found, tuple | list):
        what += f" of {', '.join(type(one).__name__ for one in found[:5])}"
    elif hasattr(found, "__iter__") and not hasattr(found, "__len__"):
        what += ", which does not say how many items it has"
    frames = _is_frame(found) or (isinstance(found, tuple | list) and any(map(_is_frame, found)))
    remedy = "; return a single DataFrame with the target as a column: --split-by and --time-order split it"
    raise UserError(f"{source}: the function returned {what}; expected {EXPECTED}{remedy if frames else ''}")


def _is_frame(found: Any) -> bool:
    pandas = sys.modules.get("pandas")
    return pandas is not None and isinstance(found, pandas.DataFrame)


def _is_dataset(found: Any) -> bool:
    """Say whether something has numbered items and is no array or container of Python's."""
    plain = isinstance(found, Mapping | tuple | list | str | bytes) or hasattr(found, "__array__")
    return not plain and hasattr(found, "__getitem__") and hasattr(found, "__len__")


def _array(source: str, what: str, found: Any) -> np.ndarray:
    """Return an array, a tensor or nested lists as an array; a column of texts as text."""
    try:
        array = np.asarray(found.detach().cpu() if hasattr(found, "detach") else found)
    except Exception as error:  # lists of unequal lengths, types that NumPy does not have
        raise UserError(f"{source}: {what} is a {type(found).__name__} that is no array: {error}") from error
    if array.dtype == object and array.size and all(isinstance(one, str) for one in array.flat):
        return array.astype(str)
    return array


def _stacked(source: str, role: str, found: Any) -> Part:
    """Return the items of a Dataset as arrays."""
    count = len(found)
    if not count:
        raise UserError(f"{source}: {role} has no items; at least one example is needed")
    x, ys = np.empty(0), []
    for index in range(count):
        try:
            item = found[index]
        except Exception as error:  # the user's code may raise anything
            reason = f"{type(error).__name__}: {error}"
            raise UserError(f"{source}: item {index} of {role} cannot be read: {reason}") from error
        if not isinstance(item, tuple | list) or len(item) != 2:
            given = f"{len(item)} values" if isinstance(item, tuple | list) else f"a {type(item).__name__}"
            raise UserError(f"{source}: item {index} of {role} is {given}; items must be pairs (x, y)")
        one = _array(source, f"x of item {index} of {role}", item[0])
        if not index:
            require_memory(source, f"{count:,} examples of shape {one.shape}", count * one.nbytes)
            x = np.empty((count, *one.shape), one.dtype)
        if one.shape != x.shape[1:] or one.dtype != x.dtype:
            raise UserError(
                f"{source}: item {index} of {role} is {one.dtype} {one.shape}, and item 0 is {x.dtype} {x.shape[1:]}; "
                "all must be alike"
            )
        x[index] = one
        ys.append(_array(source, f"y of item {index} of {role}", item[1]))
    return x, _array(source, f"y of {role}", ys)
