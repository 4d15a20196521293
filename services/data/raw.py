"""What a loader hands over before the split, and the checks that hold for every source."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from crossreg.core.errors import UserError
from crossreg.inputs import Array, Ignored, Sequence, Table
from crossreg.services.data.memory import require_memory

if TYPE_CHECKING:
    import pandas as pd

    from crossreg.services.data.kinds import Fitted

__all__ = ["Raw", "Rows", "require_finite", "validate"]


@dataclass(frozen=True, eq=False)
class Rows:
    """A table's features before the split.

    Attributes:
        source: what messages call it.
        frame: all rows of the columns that become features, typed.
        stored: the same as they stand in the file.
        columns: those that become features, in the table's order.
        ignored: the others.
        target: the column to predict.
        written: how its numbers are: mark of decimals, mark of thousands, unit.
        missing: rows without a value by column.
    """

    source: str
    frame: pd.DataFrame
    stored: pd.DataFrame
    columns: tuple[Fitted, ...]
    ignored: tuple[Ignored, ...]
    target: str
    written: tuple[str, str, str]
    missing: dict[str, int]

    def fit(self, rows: np.ndarray) -> Table:
        """Return the columns, fitted on some rows: the training split alone."""
        part = self.frame.iloc[rows]
        return Table(
            tuple(column.fit(part[column.name]) for column in self.columns), self.ignored, self.target, *self.written
        )

    def encode(self, table: Table, rows: np.ndarray, notes: list[str]) -> np.ndarray:
        """Return the features of some rows, float32 `[N, features]`."""
        size = len(rows) * len(table.features)
        require_memory(self.source, f"{len(rows):,} rows of {len(table.features):,} features", 4 * size)
        return table.encode_columns(self.frame.iloc[rows], notes)


@dataclass(frozen=True, eq=False)
class Raw:
    """Unsplit data from one source.

    Attributes:
        source: What messages call it: a name or a path.
        x: uint8 [N, C, H, W] (images), int64 or float32 [N, ...], of sequences [N, channels, time] with NaN after
            their ends; None for a table.
        y: int64 [N] (classification) or float64 [N, outputs] (regression).
        classes: Class names by index; empty for regression.
        x_test: Like x, or None where a test split must be split off.
        y_test: Like y, or None.
        table: The features of a table; None for others.
        inputs: What an array of examples is; not used for a table.
        example: Two examples of an array as they are stored, of sequences for their type alone; None where x is stored
            as it is here.
        own_reg: Rows that the data hold out themselves; None where none are.
        groups: [N] of anything, rows that belong together; None where nothing is to be kept together.
        order: float64 [N], by which splits follow each other; None where they are drawn.
        notes: What was guessed or left out, in sentences.
        skipped: Files that were not read, by ending.
    """

    source: str
    x: np.ndarray | None
    y: np.ndarray
    classes: tuple[str, ...]
    x_test: np.ndarray | None = None
    y_test: np.ndarray | None = None
    table: Rows | None = None
    inputs: Array | Sequence = field(default_factory=Array)
    example: np.ndarray | None = None
    own_reg: np.ndarray | None = None
    groups: np.ndarray | None = None
    order: np.ndarray | None = None
    notes: list[str] = field(default_factory=list)
    skipped: dict[str, int] = field(default_factory=dict)


def validate(raw: Raw) -> Raw:
    """Return raw unchanged if it can be learned from.

    Raises:
        UserError: No examples, unequal lengths or shapes, NaN or infinity, or one class only.
    """
    if len(raw.classes) == 1:
        raise UserError(f"{raw.source}: {raw.classes[0]!r} is the only class; at least 2 are needed")
    if raw.x is None:
        return raw
    parts = [("x", raw.x, "y", raw.y)]
    if raw.x_test is not None and raw.y_test is not None:
        parts.append(("x_test", raw.x_test, "y_test", raw.y_test))
    for x_name, x, y_name, y in parts:
        if len(x) != len(y):
            raise UserError(f"{raw.source}: {x_name} has {len(x)} rows and {y_name} has {len(y)}; they must be equal")
        if x.size == 0:
            raise UserError(f"{raw.source}: {x_name} is empty, shape {x.shape}; at least one example is needed")
        if not isinstance(raw.inputs, Sequence):  # whose ends were looked at when they were read
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
