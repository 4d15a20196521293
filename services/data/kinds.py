"""Which kind each column of a table is: decided once on all rows, and fitted on the training rows afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.inputs.columns import Boolean, Category, Column, Date, Number, is_missing, read_booleans, read_numbers
from crossreg.inputs.text import ISO, UNITS, NumberFormat, date_formats, number_formats, text_of

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["MAX_CATEGORIES", "Fitted", "Unused", "decide", "odd_number"]

MAX_CATEGORIES = 1_000
"""A column of text with more different values would fill memory with features."""

_FREE_TEXT = 0.5  # different values a row, above which a column is text, not categories
_FEW = 20  # different values that are categories in however few rows
_MOSTLY = 0.8  # numbers a row, above which a column is one of numbers with odd values
_ID = re.compile(r"(^|[_\s.-])(id|ids|uuid|guid|index|idx|key|nr|no|rownum|row)$|^unnamed", re.IGNORECASE)


@dataclass(frozen=True)
class Fitted:
    """A column of which the kind is known.

    Attributes:
        name: as in the table.
        kind: of `crossreg.inputs`.
        missing: rows without a value.
        fit: returns the column for a Series of training rows.
        said: what is to be said of how it is read; "" where nothing is.
    """

    name: str
    kind: str
    missing: int
    fit: Callable[[Any], Column]
    said: str = ""


@dataclass(frozen=True)
class Unused:
    """A column that tells a model nothing.

    Attributes:
        name: as in the table.
        reason: in words.
        missing: rows without a value.
        otherwise: what it would be where nothing else is left; None for one that could be nothing.
    """

    name: str
    reason: str
    missing: int
    otherwise: Fitted | None = None


def decide(column: pd.Series, kind: str | None) -> Fitted | Unused:
    """Return how a column is read.

    Args:
        column: all its values, typed or text.
        kind: as the user chose it; None decides by the values.

    Raises:
        UserError: what it holds is none of the kinds, or could be meant in several ways; without the file's name.
    """
    name = str(column.name)
    missing = int(is_missing(column).sum())
    if kind is None and missing == len(column):
        return Unused(name, "it has no values", missing)
    chosen = kind or _kind_of(column)
    made = _MAKERS[chosen](column, missing)
    if kind is not None:
        return made
    return _unused(column, made) or made


def _kind_of(column: pd.Series) -> str:
    """Return the kind of a column, or raise what is wrong with it."""
    from pandas.api import types

    dtype = column.dtype
    if types.is_bool_dtype(dtype):
        return "boolean"
    if types.is_numeric_dtype(dtype) and not types.is_complex_dtype(dtype):
        return "number"
    if types.is_datetime64_any_dtype(dtype):
        return "date"
    is_text = types.is_string_dtype(dtype) or types.is_object_dtype(dtype) or isinstance(dtype, _categorical())
    if not is_text or not column.dropna().map(_is_plain).all():
        raise UserError(
            f"column {column.name!r} holds {_example(column)}, which is no number, text, boolean or date; leave it out "
            f"with --drop {column.name}"
        )
    text = text_of(column)
    given = text.dropna()
    if given.str.lower().isin(["true", "false"]).all():
        return "boolean"
    # 007 and 08540 are no numbers but codes
    codes = given.str.fullmatch(r"0\d+").any()
    if not codes and (number_formats(text) or _mostly_numbers(given)):
        return "number"
    return "date" if date_formats(text) else "category"


def _is_plain(value: Any) -> bool:
    import datetime
    import decimal

    return isinstance(value, str | int | float | decimal.Decimal | datetime.date | np.generic)


def _categorical() -> Any:
    import pandas as pd

    return pd.CategoricalDtype


def _example(column: pd.Series) -> str:
    return f"{quoted(str(column.dropna().iloc[0]))} ({column.dtype})"


def _mostly_numbers(given: pd.Series) -> bool:
    return bool(_bare(given).notna().mean() >= _MOSTLY)


def _bare(text: pd.Series) -> pd.Series:
    """Return numbers whatever unit stands behind them."""
    import pandas as pd

    units = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
    return pd.to_numeric(text.str.replace(rf"\s*(?:{units})$", "", regex=True), errors="coerce")


def odd_number(column: pd.Series) -> UserError:
    """Return what is wrong with a column whose values are not all numbers."""
    text = text_of(column)
    units = [unit for unit in UNITS if text.str.endswith(unit, na=False).any()]
    forms = [NumberFormat(*style, unit) for style in ((".", ""), (",", ""), (".", ",")) for unit in ("", *units)]
    read = max((form.read(text) for form in forms), key=lambda values: int(values.notna().sum()))
    wrong = (read.isna() & text.notna()).to_numpy()
    row = int(wrong.argmax())
    odd = text[wrong].nunique()
    return UserError(
        f"column {column.name!r} holds numbers but for {quoted(text.iloc[row])} in data row {row + 1}"
        f"{f' ({odd} different such values)' if odd > 1 else ''}; leave the field empty where a value is missing, "
        f"mend it, or read the column otherwise: --kind {column.name}=category, or --drop {column.name}"
    )


def _number(column: pd.Series, missing: int) -> Fitted:
    import pandas as pd

    name = str(column.name)
    typed = pd.api.types.is_numeric_dtype(column.dtype) and not pd.api.types.is_bool_dtype(column.dtype)
    forms = [NumberFormat()] if typed else number_formats(text_of(column))
    if not forms:
        raise odd_number(column)
    if len(forms) > 1:
        text = text_of(column)
        seen = next(one for one in text.dropna() if any(mark in one for mark in ",.' \u00a0\u202f"))
        raise UserError(
            f"column {name!r} holds {quoted(seen)}, one number with a decimal {forms[0].decimal!r} and another "
            f"with a decimal {forms[1].decimal!r}; write decimals with a point and no marks between thousands, or "
            f"--drop {name}"
        )
    form = forms[0]
    read = read_numbers(column, form).to_numpy()
    wrong = np.isinf(read) | (np.abs(read) > np.finfo(np.float32).max)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"column {name!r} is {read[row]:g} in data row {row + 1} ({int(wrong.sum())} such values in all); "
            "values must be finite float32 numbers"
        )
    parts = [
        f"with {form.decimal!r} before decimals" if form.decimal != "." else "",
        f"with {form.thousands!r} between thousands" if form.thousands else "",
        f"in {form.unit}" if form.unit else "",
    ]
    return Fitted(name, "number", missing, lambda rows: Number.fit(name, rows, form), ", ".join(filter(None, parts)))


def _boolean(column: pd.Series, missing: int) -> Fitted:
    name = str(column.name)
    if (wrong := np.isnan(read_booleans(column)) & ~is_missing(column)).any():
        row = int(wrong.argmax())
        raise UserError(
            f"column {name!r} holds {quoted(str(column.iloc[row]))} in data row {row + 1}; a boolean is true or false"
        )
    return Fitted(name, "boolean", missing, lambda rows: Boolean.fit(name, rows))


def _category(column: pd.Series, missing: int) -> Fitted:
    name = str(column.name)
    if (count := text_of(column).nunique()) > MAX_CATEGORIES:
        raise UserError(
            f"column {name!r} has {count:,} different values, more than the {MAX_CATEGORIES:,} that are taken as "
            f"categories; leave it out with --drop {name}, or make numbers of it"
        )
    return Fitted(name, "category", missing, lambda rows: Category.fit(name, rows))


def _date(column: pd.Series, missing: int) -> Fitted:
    import pandas as pd

    name = str(column.name)
    forms = [ISO] if pd.api.types.is_datetime64_any_dtype(column.dtype) else date_formats(text_of(column))
    if not forms:
        raise UserError(f"column {name!r} holds {_example(column)}, which is no date; write dates as 2024-01-31")
    if len(forms) > 1:
        seen = quoted(text_of(column).dropna().iloc[0])
        raise UserError(
            f"column {name!r} holds {seen}, which is one date as {forms[0]} and another as {forms[1]}; write dates as "
            f"2024-01-31, or --drop {name}"
        )
    form = forms[0]
    return Fitted(name, "date", missing, lambda rows: Date.fit(name, rows, form), "" if form == ISO else f"as {form}")


_MAKERS: dict[str, Callable[[Any, int], Fitted]] = {
    "number": _number, "boolean": _boolean, "category": _category, "date": _date,
}  # fmt: skip


def _unused(column: pd.Series, made: Fitted) -> Unused | None:
    """Say why a column tells a model nothing; None where it may tell something."""
    text = text_of(column)
    given = text.dropna()
    different = given.nunique()
    if different == 1 and not made.missing:
        return Unused(made.name, f"all its values are {quoted(given.iloc[0])}", made.missing)
    whole_rows = different == len(column)
    if made.kind == "category" and different > max(_FEW, _FREE_TEXT * len(column)):
        if whole_rows or different == len(given):
            return Unused(made.name, "all its values are different, as names and ids are", made.missing)
        raise UserError(
            f"column {made.name!r} holds text, with {different:,} different values in {len(column):,} rows (such as "
            f"{quoted(given.iloc[0])}); text is not read: leave it out with --drop {made.name}, or take it as "
            f"categories all the same: --kind {made.name}=category"
        )
    if made.kind == "number" and whole_rows and given.str.fullmatch(r"\d+").all():
        counted = next((start for start in (0, 1) if list(_rows_from(start, len(given))) == given.tolist()), None)
        if counted is not None:
            return Unused(made.name, f"it counts the rows from {counted}", made.missing, made)
        if _ID.search(made.name):
            return Unused(made.name, "it is called as ids are, and all its values are different", made.missing, made)
    return None


def _rows_from(start: int, count: int) -> Iterator[str]:
    return (str(row + start) for row in range(count))
