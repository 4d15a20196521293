"""What a target is, classes or a quantity, and its values: one rule for tables and arrays."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.services.data.dataset import Task

__all__ = ["read_targets"]

MAX_INTEGER_CLASSES = 20
"""Whole numbers with more different values are a quantity."""
ROWS_A_CLASS = 5
"""And so are those with fewer rows a value than this, on the average."""


def read_targets(
    source: str,
    what: str,
    parts: Sequence[np.ndarray],
    task: Task | None,
    notes: list[str],
    *,
    integers_are_classes: bool = False,
) -> tuple[tuple[str, ...], list[np.ndarray]]:
    """Return the classes, none for a regression, and each part as class indices or numbers.

    Text and booleans are classes, and so are whole numbers with few different values; other numbers are a quantity.

    Args:
        source: what messages call the data.
        what: what they call the target.
        parts: `[N]` of any kind, or `[N, outputs]` of numbers; the first is trained on, others are tested on.
        task: as the user chose it; None decides by the values.
        notes: where a decision by the values is said, if it could have been the other.
        integers_are_classes: however many there are: an array of integers is labels by PyTorch's custom.

    Returns:
        Class names in order of their values, and int64 `[N]` or float64 `[N, outputs]` a part.

    Raises:
        UserError: values that cannot be what the task says, or a class that only a later part has.
    """
    first = parts[0]
    if first.dtype.kind == "f" and first.ndim == 2 and _is_one_hot(first):
        raise UserError(
            f"{source}: {what} has shape {first.shape} and a single 1 in each row; classes are [N], so pass one-hot "
            "rows through argmax"
        )
    if first.dtype.kind in "Ub":
        if task == "regression":
            raise UserError(f"{source}: {what} holds {quoted(str(first.flat[0]))}, and a regression needs numbers")
        classes, codes = _classes(source, what, parts)
        alike: dict[str, list[str]] = {}
        for label in classes:
            alike.setdefault(label.casefold(), []).append(label)
        notes += [
            f"{what} has classes that differ in case alone: {', '.join(map(repr, those))}"
            for those in alike.values()
            if len(those) > 1
        ]
        return classes, codes
    quantity = not _whole(first)
    different = 0 if quantity else len(np.unique(first))
    if task is None and not quantity:
        few = different <= MAX_INTEGER_CLASSES and different * ROWS_A_CLASS <= len(first)
        quantity = not few and not (integers_are_classes and first.dtype.kind in "iu")
        taken, other, flag = ("a quantity", "classes", "classification") if quantity else (
            "classes", "a quantity", "regression")  # fmt: skip
        notes.append(f"{what} holds {different} different whole numbers, taken as {taken}; --task {flag} takes {other}")
    elif task is not None:
        if task == "classification" and quantity:
            odd = first.ravel()[np.argmax(first.ravel() != np.rint(first.ravel()))]
            raise UserError(f"{source}: {what} holds {odd:g}; classes are text or whole numbers: --task regression")
        quantity = task == "regression"
    if quantity:
        return (), [(part[:, None] if part.ndim == 1 else part).astype(np.float64) for part in parts]
    return _classes(source, what, [_integers(source, what, part) for part in parts])


def _is_one_hot(y: np.ndarray) -> bool:
    return y.shape[1] > 1 and bool(np.isin(y, (0, 1)).all() and (y.sum(1) == 1).all())


def _whole(y: np.ndarray) -> bool:
    """Say whether a single column of numbers is whole."""
    if y.ndim != 1 or not len(y):
        return False
    return y.dtype.kind in "iu" or bool(np.isfinite(y).all() and (y == np.rint(y)).all() and np.abs(y).max() < 2**53)


def _integers(source: str, what: str, y: np.ndarray) -> np.ndarray:
    if not _whole(y):
        raise UserError(f"{source}: {what} holds classes in one part and fractions in another")
    return y.astype(np.int64)


def _classes(source: str, what: str, parts: Sequence[np.ndarray]) -> tuple[tuple[str, ...], list[np.ndarray]]:
    values, codes = np.unique(parts[0], return_inverse=True)
    encoded = [codes.astype(np.int64)]
    for part in parts[1:]:
        unknown = np.setdiff1d(part, values)
        if len(unknown):
            known = ", ".join(str(value) for value in values[:20])
            raise UserError(f"{source}: class {str(unknown[0])!r} is in the test split but not in training ({known})")
        encoded.append(np.searchsorted(values, part).astype(np.int64))
    return tuple(str(value) for value in values), encoded
