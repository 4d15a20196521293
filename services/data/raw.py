"""What a loader hands over before the split, and the checks that hold for every source."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from crossreg.core.errors import UserError

__all__ = ["Raw", "encode", "require_finite", "validate"]


@dataclass(frozen=True, eq=False)
class Raw:
    """Unsplit data from one source.

    Attributes:
        source: What messages call it: a name or a path.
        x: uint8 [N, C, H, W] (images) or float32 [N, ...].
        y: int64 [N] (classification) or float32 [N, outputs] (regression).
        classes: Class names by index; empty for regression.
        x_test: Like x, or None where a test split must be split off.
        y_test: Like y, or None.
    """

    source: str
    x: np.ndarray
    y: np.ndarray
    classes: tuple[str, ...]
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None


def encode(source: str, y: np.ndarray, y_test: np.ndarray | None = None) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return class names, sorted by value, and int64 class indices for y and, where given, y_test.

    Raises:
        UserError: y_test holds a class that y does not.
    """
    values, codes = np.unique(y, return_inverse=True)
    encoded = [codes.astype(np.int64)]
    if y_test is not None:
        unknown = np.setdiff1d(y_test, values)
        if len(unknown):
            known = ", ".join(str(value) for value in values[:20])
            raise UserError(f"{source}: class {str(unknown[0])!r} is in the test split but not in training ({known})")
        encoded.append(np.searchsorted(values, y_test).astype(np.int64))
    return tuple(str(value) for value in values), encoded


def validate(raw: Raw) -> Raw:
    """Return raw unchanged if it can be learned from.

    Raises:
        UserError: No examples, unequal lengths or shapes, NaN or infinity, or one class only.
    """
    parts = [("x", raw.x, "y", raw.y)]
    if raw.x_test is not None and raw.y_test is not None:
        parts.append(("x_test", raw.x_test, "y_test", raw.y_test))
    for x_name, x, y_name, y in parts:
        if len(x) != len(y):
            raise UserError(f"{raw.source}: {x_name} has {len(x)} rows and {y_name} has {len(y)}; they must be equal")
        if x.size == 0:
            raise UserError(f"{raw.source}: {x_name} is empty, shape {x.shape}; at least one example is needed")
        require_finite(raw.source, x_name, x)
        require_finite(raw.source, y_name, y)
    _, x, _, y = parts[0]
    for x_name, other, y_name, target in parts[1:]:
        if other.shape[1:] != x.shape[1:] or other.dtype != x.dtype:
            raise UserError(
                f"{raw.source}: one example of {x_name} is {other.dtype} {other.shape[1:]}, but of x it is "
                f"{x.dtype} {x.shape[1:]}; they must be equal"
            )
        if target.shape[1:] != y.shape[1:]:
            raise UserError(f"{raw.source}: {y_name} has shape {target.shape}, y has {y.shape}; rows must be alike")
    if len(raw.classes) == 1:
        raise UserError(f"{raw.source}: {raw.classes[0]!r} is the only class; at least 2 are needed")
    return raw


def require_finite(source: str, name: str, array: np.ndarray) -> None:
    """Refuse NaN and infinity, saying how many there are and where the first one is.

    Raises:
        UserError: The array holds NaN or infinity.
    """
    if array.dtype.kind != "f":
        return
    finite = np.isfinite(array)
    if not finite.all():
        first = np.unravel_index(int(np.argmin(finite)), array.shape)
        where = ", ".join(str(int(index)) for index in first)
        raise UserError(
            f"{source}: {name}[{where}] is {array[first]} ({int((~finite).sum())} such values in all); "
            "values must be finite float32 numbers: drop or fill them"
        )
