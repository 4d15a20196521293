"""Which kind each column of a table is: decided once on all rows, and fitted on the training rows afterwards."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.inputs.columns import (
    Boolean,
    Category,
    Column,
    Date,
    Number,
    is_missing,
    read_booleans,
    read_dates,
    read_numbers,
)
from crossreg.inputs.text import (
    DIGITS,
    ISO,
    MINUS,
    UNITS,
    NumberFormat,
    date_formats,
    number_formats,
    parse_dates,
    text_of,
)

if TYPE_CHECKING:
    import pandas as pd

__all__ = [
    "MAX_CATEGORIES",
    "Fitted",
    "Unused",
    "ambiguous",
    "decide",
    "is_plain",
    "mostly_numbers",
    "odd_number",
    "said_of",
]

MAX_CATEGORIES = 1_000
"""A column of text with more different values would fill memory with features."""

_FREE_TEXT = 0.5  # different values a row, above which a column is text, not categories
_FEW = 20  # different values that are categories in however few rows
_MOSTLY = 0.8  # numbers a row, above which a column is one of numbers with odd values
_MONTH = (
    r"\b(jan(uary)?|feb(ruary)?|mar(ch)?|apr(il)?|may|june?|july?|aug(ust)?|sept?(ember)?|oct(ober)?|nov(ember)?"
    r"|dec(ember)?)\b"
)
_LIKE_A_DATE = re.compile(
    rf".*\d.*{_MONTH}.*|.*{_MONTH}.*\d.*|\d{{1,4}}[-/.]\d{{1,2}}[-/.]\d{{1,4}}\b.*", re.IGNORECASE
)
_ID = re.compile(r"(^|[_\s.-])(id|ids|uuid|guid|index|idx|key|nr|no|rownum|row)$|^unnamed", re.IGNORECASE)


@dataclass(frozen=True)
class Fitted:
    """A column of which the kind is known.

    Attributes:
        name: as in the table.
        kind: of `crossreg.inputs`.
        missing: rows without a value.
        values: all rows, typed: read once.
        fit: returns the column for a Series of training rows.
        said: what is to be said of how it is read; "" where nothing is.
        hint: what it may be beside; "" where nothing is.
    """

    name: str
    kind: str
    missing: int
    values: Any
    fit: Callable[[Any], Column]
    said: str = ""
    hint: str = ""


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
    text = _Text(column)
    missing = int(text.absent.sum())
    if kind is None and missing == len(column):
        return Unused(text.name, "it has no values", missing)
    chosen = kind or _kind_of(text)
    made = _MAKERS[chosen](text, missing)
    unused = None if kind is not None else _unused(text, made)
    if unused is None and made.kind == "category" and (count := text.text.nunique()) > MAX_CATEGORIES:
        raise UserError(
            f"column {made.name!r} has {count:,} different values, more than the {MAX_CATEGORIES:,} that are taken as "
            f"categories; leave it out with --drop {made.name}, or make numbers of it"
        )
    return unused or made


class _Text:
    """A column, and its values as text where that is asked for: reading text is slow, and is done once."""

    def __init__(self, column: pd.Series) -> None:
        self.column, self.name = column, str(column.name)

    @cached_property
    def text(self) -> pd.Series:
        return text_of(self.column)

    @cached_property
    def absent(self) -> np.ndarray:
        return is_missing(self.column) if self.is_number or self.is_date else self.text.isna().to_numpy()

    @cached_property
    def formats(self) -> list[NumberFormat]:
        return [NumberFormat()] if self.is_number else number_formats(self.text)

    @property
    def is_number(self) -> bool:
        from pandas.api import types

        dtype = self.column.dtype
        is_bool, is_complex = types.is_bool_dtype(dtype), types.is_complex_dtype(dtype)
        return types.is_numeric_dtype(dtype) and not is_bool and not is_complex

    @property
    def is_date(self) -> bool:
        from pandas.api import types

        return bool(types.is_datetime64_any_dtype(self.column.dtype))


def _kind_of(text: _Text) -> str:
    """Return the kind of a column, or raise what is wrong with it."""
    import pandas as pd
    from pandas.api import types

    column, dtype = text.column, text.column.dtype
    if types.is_bool_dtype(dtype):
        return "boolean"
    if isinstance(dtype, pd.CategoricalDtype):
        return "category"
    if text.is_number:
        return "category" if _beyond_exact(column) else "number"
    if text.is_date:
        return "date"
    is_text = types.is_string_dtype(dtype) or types.is_object_dtype(dtype)
    if not is_text or (types.is_object_dtype(dtype) and not column.dropna().map(is_plain).all()):
        raise UserError(
            f"column {text.name!r} holds {_example(column)}, which is no number, text, boolean or date; leave it out "
            f"with --drop {text.name}"
        )
    given = text.text.dropna()
    # 007 and 08540 are no numbers but codes, and numbers of more digits than are exact are ids
    codes = given.str.fullmatch(r"0\d+|[+-]?\d{17,}").any()
    if not codes and (text.formats or mostly_numbers(given)):
        return "number"
    if given.head(1).str.lower().isin(["true", "false"]).any() and given.str.lower().isin(["true", "false"]).all():
        return "boolean"
    if date_formats(text.text):
        return "date"
    if given.str.fullmatch(_LIKE_A_DATE).mean() >= _MOSTLY:
        raise UserError(
            f"column {text.name!r} holds {quoted(given.iloc[0])}, which looks like a date in a form that is not known, "
            f"or in several; write dates as 2024-01-31, or take it as categories all the same: "
            f"--kind {text.name}=category"
        )
    return "category"


def is_plain(value: Any) -> bool:
    """Say whether a value is a number, text, boolean or date."""
    import datetime
    import decimal

    return isinstance(value, str | int | float | decimal.Decimal | datetime.date | np.generic)


def _example(column: pd.Series) -> str:
    return f"{quoted(str(column.dropna().iloc[0]))} ({column.dtype})"


def mostly_numbers(given: pd.Series) -> bool:
    """Say whether most values look like numbers, however they are written: with a unit, in brackets, as a duration."""
    units = "|".join(re.escape(unit) for unit in sorted(UNITS, key=len, reverse=True))
    # the mark itself: pandas may hand the pattern to RE2, which knows no escape for it
    number = rf"[(+\-{MINUS}]?\s*[$€£¥]?\s*\d[\d.,'\s]*([eE][+-]?\d+)?\s*(?:{units})?\)?"
    looks = given.str.fullmatch(rf"{number}|\d+:\d\d(:\d\d)?([.,]\d+)?")
    # dates have points and spaces too
    return bool(looks.mean() >= _MOSTLY and not date_formats(given))


def _beyond_exact(column: pd.Series) -> bool:
    if column.dtype.kind not in "iu":
        return False
    known = column.dropna()
    return bool(len(known)) and max(abs(int(known.max())), abs(int(known.min()))) > 2**53


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


def ambiguous(text: pd.Series, forms: list[NumberFormat]) -> str:
    """Say which value of a column of numbers could be meant in two ways, and what to do."""
    seen = next(one for one in text.dropna() if any(mark in one for mark in ",.' \u00a0\u202f"))
    return (
        f"{quoted(seen)}, one number with a decimal {forms[0].decimal!r} and another with a decimal "
        f"{forms[1].decimal!r}; write decimals with a point and no marks between thousands"
    )


def _number(text: _Text, missing: int) -> Fitted:
    name, forms = text.name, text.formats
    if text.absent.all():
        raise UserError(
            f"column {name!r} has no values, so it cannot be read as numbers; leave it out with --drop {name}"
        )
    if not forms:
        raise odd_number(text.column)
    if len(forms) > 1:
        raise UserError(f"column {name!r} holds {ambiguous(text.text, forms)}, or --drop {name}")
    form = forms[0]
    values = read_numbers(text.column, form)
    read = values.to_numpy()
    wrong = np.isinf(read) | (np.abs(read) > np.finfo(np.float32).max)
    if wrong.any():
        row = int(wrong.argmax())
        raise UserError(
            f"column {name!r} is {read[row]:g} in data row {row + 1} ({int(wrong.sum())} such values in all); "
            "values must be finite float32 numbers"
        )
    said, hint = said_of(form), hints(name, read)
    return Fitted(name, "number", missing, values, lambda rows: Number.fit(name, rows, form), said, hint)


def said_of(form: NumberFormat) -> str:
    """Say how numbers are written, "" for the plain way."""
    parts = [
        f"with {form.decimal!r} before decimals" if form.decimal != "." else "",
        f"with {form.thousands!r} between thousands" if form.thousands else "",
        f"in {form.unit}" if form.unit else "",
    ]
    return ", ".join(filter(None, parts))


_STANDS_FOR_MISSING = (-9999.0, -999.0, -99.0, 99.0, 999.0, 9999.0, 99999.0)


def hints(name: str, numbers: np.ndarray) -> str:
    """Say what numbers may be beside quantities: codes for missing values, dates, ids that repeat; "" where nothing."""
    known = numbers[~np.isnan(numbers)]
    if not len(known):
        return ""
    for code in _STANDS_FOR_MISSING:
        mine, others = known == code, known[known != code]
        if mine.sum() < 2 or len(others) < 10:
            continue
        low, high = np.quantile(others, [0.25, 0.75])
        far = 10 * max(high - low, 1e-12)
        beyond = code < others.min() - far or code > others.max() + far
        if beyond:
            return (
                f"column {name!r} holds {code:g} in {int(mine.sum()):,} rows, far from all else: leave the field empty "
                "if it stands for a missing value"
            )
    whole = bool((known == np.rint(known)).all())
    if whole and known.min() >= 19000101 and known.max() <= 21001231:
        month, day = known // 100 % 100, known % 100
        if ((month >= 1) & (month <= 12) & (day >= 1) & (day <= 31)).all():
            return f"column {name!r} holds numbers that look like dates; --kind {name}=date reads them so"
    if whole and _ID.search(name) and len(np.unique(known)) < len(known):
        return (
            f"column {name!r} is called as ids are and taken as a number; --split-by {name} keeps its rows together, "
            f"--drop {name} leaves it out"
        )
    return ""


def _boolean(text: _Text, missing: int) -> Fitted:
    import pandas as pd

    name = text.name
    read = read_booleans(text.column)
    if (wrong := np.isnan(read) & ~text.absent).any():
        row = int(wrong.argmax())
        seen = quoted(str(text.column.iloc[row]))
        raise UserError(
            f"column {name!r} holds {seen} in data row {row + 1}; a boolean is true or false, yes or no, 1 or 0; or "
            f"take it as categories: --kind {name}=category"
        )
    values = pd.Series(read, index=text.column.index)
    return Fitted(name, "boolean", missing, values, lambda rows: Boolean.fit(name, rows))


def _category(text: _Text, missing: int) -> Fitted:
    name = text.name
    return Fitted(name, "category", missing, text.text, lambda rows: Category.fit(name, rows))


def _date(text: _Text, missing: int) -> Fitted:
    import pandas as pd

    name = text.name
    forms = [ISO] if text.is_date else date_formats(text.text)
    if not forms and text.text.dropna().str.fullmatch(r"(19|20)\d{6}").all():
        forms = [DIGITS] if parse_dates(text.text.dropna(), DIGITS).notna().all() else []
    if not forms:
        raise UserError(f"column {name!r} holds {_example(text.column)}, which is no date; write dates as 2024-01-31")
    if len(forms) > 1:
        raise UserError(
            f"column {name!r} holds {quoted(text.text.dropna().iloc[0])}, which is one date as {forms[0]} and another "
            f"as {forms[1]}; write dates as 2024-01-31, or --drop {name}"
        )
    form = forms[0]
    if not text.is_date and form == ISO:
        zoned = text.text.dropna().str.contains(r"\d{2}:\d{2}.*(?:Z|[+-]\d{2}:?\d{2})$", regex=True)
        if zoned.any() and not zoned.all():
            raise UserError(
                f"column {name!r} holds times with a zone and without ({quoted(text.text.dropna()[~zoned].iloc[0])}); "
                f"write all in one way, or --drop {name}"
            )
    values = pd.Series(read_dates(text.column, form), index=text.column.index)
    said = "" if form == ISO else f"as {form}"
    return Fitted(name, "date", missing, values, lambda rows: Date.fit(name, rows, form), said)


_MAKERS: dict[str, Callable[[_Text, int], Fitted]] = {
    "number": _number, "boolean": _boolean, "category": _category, "date": _date,
}  # fmt: skip


def _unused(text: _Text, made: Fitted) -> Unused | None:
    """Say why a column tells a model nothing; None where it may tell something."""
    count = len(made.values)
    different = made.values.nunique()
    if different == 1 and not made.missing:
        return Unused(made.name, f"all its values are {quoted(str(text.text.iloc[0]))}", made.missing)
    if made.kind == "category" and different > max(_FEW, _FREE_TEXT * count):
        if different == count - made.missing:
            return Unused(made.name, "all its values are different, as names and ids are", made.missing)
        raise UserError(
            f"column {made.name!r} holds text, with {different:,} different values in {count:,} rows (such as "
            f"{quoted(text.text.dropna().iloc[0])}); text is not read: leave it out with --drop {made.name}, or take "
            f"it as categories all the same: --kind {made.name}=category"
        )
    if made.kind == "number" and different == count:
        numbers = made.values.to_numpy()
        start = numbers[0] if count else 0
        if start in (0, 1) and (np.diff(numbers) == 1).all():
            return Unused(made.name, f"it counts the rows from {start:g}", made.missing, made)
        if _ID.search(made.name) and (numbers == np.rint(numbers)).all():
            return Unused(made.name, "it is called as ids are, and all its values are different", made.missing, made)
    return None
