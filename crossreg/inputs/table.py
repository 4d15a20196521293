"""A table's rows as a model takes them: named columns in, float32 features out."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossreg.core.errors import UserError, nearest, quoted
from crossreg.inputs.columns import Boolean, Column, Number
from crossreg.inputs.text import NumberFormat

__all__ = ["Ignored", "Table"]


@dataclass(frozen=True)
class Ignored:
    """A column of the training's table that the model does not take.

    Attributes:
        name: as in the table.
        reason: why, in words.
    """

    name: str
    reason: str


@dataclass(frozen=True)
class Table:
    """The columns that a model takes, in the order of its table.

    Attributes:
        columns: each fitted on the training rows.
        ignored: columns of that table that it does not take, the target among them; they may be there or not.
        target: the column that it predicts.
        decimal: mark of decimals in the target's text.
        thousands: mark of thousands there; "" where there is none.
        unit: text beside each of its numbers; "" where there is none.
    """

    columns: tuple[Column, ...]
    ignored: tuple[Ignored, ...] = ()
    target: str = ""
    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    @property
    def target_format(self) -> NumberFormat:
        """How the target's numbers are written in text."""
        return NumberFormat(self.decimal, self.thousands, self.unit)

    @property
    def features(self) -> tuple[str, ...]:
        """Names of the features, in order."""
        return tuple(feature for column in self.columns for feature in column.features)

    def encode(self, rows: Any, notes: list[str] | None = None, *, surplus: bool = True) -> np.ndarray:
        """Return float32 `[N, features]`.

        Args:
            rows: a pandas DataFrame of N rows, or a list of N mappings from column names to values.
            notes: where is said what was guessed: values that training never saw, columns not taken.
            surplus: whether columns that training's table did not have are let be, and noted; else refused.

        Raises:
            UserError: a column is missing, or holds a value that it cannot hold.
        """
        notes = [] if notes is None else notes
        frame = self._frame(rows)
        names = [column.name for column in self.columns]
        known = [*names, *(one.name for one in self.ignored)]
        extra = [str(name) for name in frame.columns if name not in known]
        if extra and not surplus:
            raise UserError(f"unknown column {quoted(extra[0])}{nearest(extra[0], known)}; expected {self._listed()}")
        absent = [name for name in names if name not in frame.columns]
        if absent:
            close = f"; there is {quoted(extra[0])}" if len(extra) == 1 else nearest(absent[0], extra)
            raise UserError(
                f"column {absent[0]!r} is missing{close}; expected {self._listed()} "
                "(a value may be missing, a column may not)"
            )
        if extra:
            notes.append(f"not used, for training's table did not have {_those(extra)}")
        return self.encode_columns(frame.reset_index(drop=True), notes)

    def encode_columns(self, frame: Any, notes: list[str]) -> np.ndarray:
        """Return float32 `[N, features]` of a frame that has all columns; its index numbers the rows from 0."""
        x = np.empty((len(frame), len(self.features)), np.float32)
        place = 0
        for column in self.columns:
            width = len(column.features)
            x[:, place : place + width] = column.encode(frame[column.name], notes)
            place += width
        return x

    def from_array(self, x: np.ndarray) -> Any:
        """Return rows for an array of numbers `[N, columns]`, in the order of the columns; NaN is a missing value.

        Raises:
            UserError: the array has another shape, or a column holds no numbers.
        """
        import pandas as pd

        names = [column.name for column in self.columns]
        other = next((column for column in self.columns if not isinstance(column, Number | Boolean)), None)
        if other is not None:
            raise UserError(
                f"an array of numbers cannot hold column {other.name!r} ({other.kind}); give rows with names: "
                f"{self._listed()}"
            )
        if x.ndim != 2 or x.shape[1] != len(names):
            raise UserError(
                f"inputs have shape {x.shape}; expected (N, {len(names)}), one for each of {self._listed()}"
            )
        return pd.DataFrame(x, columns=names)

    def _frame(self, rows: Any) -> Any:
        import pandas as pd

        if isinstance(rows, pd.DataFrame):
            if (twice := rows.columns[rows.columns.duplicated()]).size:
                raise UserError(f"column {twice[0]!r} occurs twice; names must differ")
            return rows
        for index, row in enumerate(rows):
            if not isinstance(row, Mapping):
                raise UserError(f"row {index + 1} is {quoted(row)}; expected an object with {self._listed()}")
            for column in self.columns:
                if column.name not in row:
                    close = difflib.get_close_matches(column.name, [str(name) for name in row], 1)
                    but = f", but {close[0]!r}" if close else ""
                    raise UserError(
                        f"row {index + 1} has no {column.name!r}{but}; expected {self._listed()} "
                        "(null where the value is missing)"
                    )
        # values of a column as they are: a column of whole numbers and nulls would become floats
        names = dict.fromkeys(name for row in rows for name in row)
        return pd.DataFrame({name: pd.Series([row.get(name) for row in rows], dtype=object) for name in names})

    def _listed(self) -> str:
        names = [column.name for column in self.columns]
        more = f" and {len(names) - 20} more" if len(names) > 20 else ""
        return ", ".join(names[:20]) + more


def _those(names: list[str]) -> str:
    more = f" and {len(names) - 3} more" if len(names) > 3 else ""
    return ", ".join(map(quoted, names[:3])) + more
