"""The kinds of a table's columns: fitted on training rows, they turn any rows into numbers."""

from __future__ import annotations

import re
from abc import ABC, abstractmethod
from dataclasses import dataclass, field
from typing import Any, ClassVar

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.inputs.text import ISO, NumberFormat, parse_dates, text_of

__all__ = [
    "CYCLES",
    "KINDS",
    "Boolean",
    "Category",
    "Column",
    "Date",
    "Number",
    "is_missing",
    "offset_of",
    "read_numbers",
]

_SHOWN = 5
# float32 has 24 bits: a spread of less than 2^12 steps between neighbouring values is refined by an offset
_COARSE = 2.0**-12


@dataclass(frozen=True)
class Column(ABC):
    """A column that a model takes.

    Attributes:
        name: as in the table.
        missing: whether training rows had missing values: then a feature of its own says so.
    """

    kind: ClassVar[str]
    name: str
    missing: bool

    @property
    @abstractmethod
    def features(self) -> tuple[str, ...]:
        """Names of the numbers that the column becomes."""

    @abstractmethod
    def encode(self, values: Any, notes: list[str]) -> np.ndarray:
        """Return float64 `[N, features]`.

        Args:
            values: pandas Series of length N, of any type; its index numbers the rows from 0.
            notes: where what was guessed is said.

        Raises:
            UserError: a value that the column cannot hold, with its row, counted from 1.
        """

    @property
    @abstractmethod
    def expects(self) -> str:
        """What a value has to be, in words."""

    @property
    @abstractmethod
    def example(self) -> Any:
        """A value as JSON has it: what a missing one is taken for."""

    def refuse(self, values: Any, wrong: np.ndarray) -> UserError:
        """Return the error for the first value that is wrong, bool `[N]`."""
        row = int(np.argmax(wrong))
        return UserError(
            f"column {self.name!r} holds {quoted(str(values.iloc[row]))} in row {values.index[row] + 1}"
            f"{_more(int(wrong.sum()))}; expected {self.expects}"
        )

    def _and_missing(self, *features: str) -> tuple[str, ...]:
        return (*features, f"{self.name} is missing") if self.missing else features

    def _with_missing(self, numbers: list[np.ndarray], absent: np.ndarray, values: Any, notes: list[str]) -> np.ndarray:
        if self.missing:
            numbers.append(absent.astype(np.float64))
        elif absent.any():
            notes.append(
                f"{self.name!r} is missing in {_rows(values, absent)}, which it never was in training: "
                f"taken as {self._filled}"
            )
        return np.stack(numbers, axis=1)

    @property
    def _filled(self) -> str:
        return "its median there"


def offset_of(values: np.ndarray) -> float:
    """Return what to take off float64 values before they become float32; 0 where nothing is lost without.

    Args:
        values: `[N]`, finite or NaN.
    """
    known = values[np.isfinite(values)]
    if not len(known):
        return 0.0
    spacing = float(np.spacing(np.float32(min(np.abs(known).max(), 1e38))))
    return float(np.median(known)) if spacing > _COARSE * known.std() > 0 else 0.0


@dataclass(frozen=True)
class Number(Column):
    """Numbers; a missing one is the training rows' median.

    Attributes:
        median: of the training rows.
        offset: taken off before the values become float32, which would lose them otherwise.
        whole: whether all were whole.
        decimal: mark of decimals in text.
        thousands: mark of thousands in text; "" where there is none.
        unit: text beside each number; "" where there is none.
    """

    kind: ClassVar[str] = "number"
    median: float
    offset: float = 0.0
    whole: bool = False
    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    @classmethod
    def fit(cls, name: str, values: Any, form: NumberFormat) -> Number:
        """Return the column of a Series of training rows."""
        read = read_numbers(values, form).to_numpy()
        known = read[~np.isnan(read)]
        # of the lower two where their number is even: a value that occurs
        median = float(np.quantile(known, 0.5, method="lower")) if len(known) else 0.0
        whole = bool(len(known)) and bool((known == np.rint(known)).all())
        return cls(
            name, len(known) < len(read), median, offset_of(read), whole, form.decimal, form.thousands, form.unit
        )

    @property
    def features(self) -> tuple[str, ...]:
        """Its name, and whether it is missing."""
        return self._and_missing(self.name)

    @property
    def expects(self) -> str:
        """What a value has to be, in words."""
        unit = f" in {self.unit}" if self.unit else ""
        mark = f" with {self.decimal!r} before decimals" if self.decimal != "." else ""
        return f"a finite number{unit}{mark}, or nothing where it is missing"

    @property
    def example(self) -> float:
        """The median."""
        return int(self.median) if self.whole else self.median

    def encode(self, values: Any, notes: list[str]) -> np.ndarray:
        """Return the numbers less the offset, and 1 where one is missing."""
        read = read_numbers(values, NumberFormat(self.decimal, self.thousands, self.unit)).to_numpy()
        absent = is_missing(values)
        # what overflows float32 too
        wrong = ~absent & ~(np.abs(read) <= np.finfo(np.float32).max)
        if wrong.any():
            raise self.refuse(values, wrong)
        return self._with_missing([np.where(absent, self.median, read) - self.offset], absent, values, notes)


@dataclass(frozen=True)
class Boolean(Column):
    """True and false; a missing one is what most training rows hold."""

    kind: ClassVar[str] = "boolean"
    mostly: bool = False

    @classmethod
    def fit(cls, name: str, values: Any) -> Boolean:
        """Return the column of a Series of training rows."""
        read = read_booleans(values)
        return cls(
            name, bool(np.isnan(read).any()), bool(np.nanmean(read) > 0.5) if not np.isnan(read).all() else False
        )

    @property
    def features(self) -> tuple[str, ...]:
        """Its name, and whether it is missing."""
        return self._and_missing(self.name)

    @property
    def expects(self) -> str:
        """What a value has to be, in words."""
        return "true or false, or nothing where it is missing"

    @property
    def example(self) -> bool:
        """What most training rows hold."""
        return self.mostly

    @property
    def _filled(self) -> str:
        return str(self.mostly).lower()

    def encode(self, values: Any, notes: list[str]) -> np.ndarray:
        """Return 1 for true, 0 for false, and 1 where one is missing."""
        read, absent = read_booleans(values), is_missing(values)
        if (wrong := ~absent & np.isnan(read)).any():
            raise self.refuse(values, wrong)
        return self._with_missing([np.where(absent, float(self.mostly), read)], absent, values, notes)


@dataclass(frozen=True)
class Category(Column):
    """One of several texts; a feature each. What training did not see is none of them, and so is a missing one.

    Attributes:
        values: those of the training rows, sorted.
    """

    kind: ClassVar[str] = "category"
    values: tuple[str, ...] = ()

    @classmethod
    def fit(cls, name: str, values: Any) -> Category:
        """Return the column of a Series of training rows."""
        text = text_of(values)
        return cls(name, bool(text.isna().any()), tuple(sorted(text.dropna().unique())))

    @property
    def features(self) -> tuple[str, ...]:
        """One a category, and whether it is missing."""
        return self._and_missing(*(f"{self.name} = {value}" for value in self.values))

    @property
    def expects(self) -> str:
        """What a value has to be, in words."""
        more = f" and {len(self.values) - _SHOWN} more" if len(self.values) > _SHOWN else ""
        return f"one of {', '.join(map(repr, self.values[:_SHOWN]))}{more}"

    @property
    def example(self) -> str | None:
        """The first of its values."""
        return self.values[0] if self.values else None

    @property
    def _filled(self) -> str:
        return "none of its values"

    def encode(self, values: Any, notes: list[str]) -> np.ndarray:
        """Return 1 in the place of the category."""
        import pandas as pd

        text = text_of(values)
        absent = text.isna().to_numpy()
        index = pd.Index(self.values, dtype=object)
        codes = index.get_indexer(text.astype(object))
        if ((codes < 0) & ~absent).any():
            text = text.map({seen: self._as_in_training(seen) for seen in text.dropna().unique()})
            codes = index.get_indexer(text.astype(object))
        if (unknown := (codes < 0) & ~absent).any():
            row = int(np.argmax(unknown))
            seen, different = quoted(str(text.iloc[row])), int(text[unknown].nunique())
            what = f"is {seen} in row {values.index[row] + 1}, which training never saw: taken"
            if unknown.sum() > 1:
                kinds = f"of {different} different kinds, such as" if different > 1 else "all"
                what = (
                    f"has values that training never saw in {int(unknown.sum()):,} rows ({kinds} {seen} in row "
                    f"{values.index[row] + 1}): taken"
                )
            notes.append(f"{self.name!r} {what} as none of its values; expected {self.expects}")
        hot = (codes[:, None] == np.arange(len(self.values))).astype(np.float64)
        return self._with_missing([*hot.T], absent, values, notes)

    def _as_in_training(self, text: str) -> str:
        """Return a value as training wrote it, where programs write it otherwise: 10001.0, or 1 for 01."""
        whole = text.removesuffix(".0") if re.fullmatch(r"\d+\.0", text) else text
        widths = {len(value) for value in self.values}
        if len(widths) == 1 and whole.isdecimal() and all(map(str.isdecimal, self.values)):
            whole = whole.zfill(widths.pop())
        return whole if whole in self.values else text


_DAY = np.timedelta64(1, "D")
CYCLES = {"year": 365.2425, "week": 7.0, "day": 1.0}  # days


@dataclass(frozen=True)
class Date(Column):
    """Dates and times: days since the first of training, and the place in the year, the week and the day as a circle.

    Attributes:
        first: of the training rows, ISO 8601.
        median: of the training rows, in days since the first: what a missing one becomes.
        cycles: "year", "week", "day": those that training rows differ in.
        form: how text is read, see `crossreg.inputs.text.DATE_FORMATS`.
    """

    kind: ClassVar[str] = "date"
    first: str = ""
    median: float = 0.0
    cycles: tuple[str, ...] = field(default=("year", "week", "day"))
    form: str = ISO

    @classmethod
    def fit(cls, name: str, values: Any, form: str) -> Date:
        """Return the column of a Series of training rows."""
        read = read_dates(values, form)
        known = read[~np.isnat(read)]
        first = known.min() if len(known) else np.datetime64("1970-01-01", "us")
        days = (known - first) / _DAY
        # a year's circle needs a good part of a year: within a week all its values are alike
        span = float(days.max()) if len(days) else 0.0
        cycles = [cycle for cycle, needed in (("year", 60.0), ("week", 2.0)) if span >= needed]
        if len(np.unique(known - known.astype("datetime64[D]"))) > 1:
            cycles.append("day")
        median = float(np.quantile(days, 0.5, method="lower")) if len(days) else 0.0
        return cls(name, len(known) < len(read), str(first.astype("datetime64[s]")), median, tuple(cycles), form)

    @property
    def features(self) -> tuple[str, ...]:
        """Days, two a circle, and whether it is missing."""
        circles = [f"{self.name} in the {cycle}, {part}" for cycle in self.cycles for part in ("sine", "cosine")]
        return self._and_missing(f"{self.name}, days since {self.first.partition('T')[0]}", *circles)

    @property
    def expects(self) -> str:
        """What a value has to be, in words."""
        form = "an ISO date such as 2024-01-31" if self.form == ISO else f"a date in the form {self.form}"
        return f"{form}, or nothing where it is missing"

    @property
    def example(self) -> str:
        """The first date of training, in ISO 8601."""
        return self.first

    def encode(self, values: Any, notes: list[str]) -> np.ndarray:
        """Return days and circles, and 1 where one is missing."""
        read, absent = read_dates(values, self.form), is_missing(values)
        if (wrong := ~absent & np.isnat(read)).any():
            raise self.refuse(values, wrong)
        first = np.datetime64(self.first, "us")
        read = np.where(absent, first + np.timedelta64(round(self.median * 86_400_000_000), "us"), read)
        days = (read - first) / _DAY
        numbers = [days]
        # weeks begin on a Monday: the fifth of January 1970
        since = {
            "year": (read - read.astype("datetime64[Y]")) / _DAY,
            "week": (read - np.datetime64("1970-01-05")) / _DAY,
            "day": (read - read.astype("datetime64[D]")) / _DAY,
        }
        for cycle in self.cycles:
            angle = 2 * np.pi * since[cycle] / CYCLES[cycle]
            numbers += [np.sin(angle), np.cos(angle)]
        return self._with_missing(numbers, absent, values, notes)


KINDS: dict[str, type[Column]] = {one.kind: one for one in (Number, Boolean, Category, Date)}


def is_missing(values: Any) -> np.ndarray:
    """Return bool `[N]`: where a Series has no value, or text that stands for none."""
    import pandas as pd

    types = pd.api.types
    if types.is_numeric_dtype(values.dtype) or types.is_datetime64_any_dtype(values.dtype):
        return np.asarray(values.isna())
    return np.asarray(text_of(values).isna())


def read_numbers(values: Any, form: NumberFormat) -> Any:
    """Return float64, NaN for what is missing or no number; numbers in a numeric Series are taken as they are."""
    import pandas as pd

    numeric = pd.api.types.is_numeric_dtype(values.dtype) and not pd.api.types.is_bool_dtype(values.dtype)
    if numeric and not pd.api.types.is_complex_dtype(values.dtype):
        return pd.Series(values.to_numpy(np.float64, na_value=np.nan), index=values.index)
    # numbers among objects, as JSON has them, are no text that has a format
    plain = values.map(lambda one: isinstance(one, int | float | np.number) and not isinstance(one, bool | np.bool_))
    read = form.read(text_of(values))
    if plain.any():
        read = read.where(~plain.astype(bool), values.where(plain, np.nan).map(_as_float).astype("float64"))
    return read.astype("float64")


def _as_float(value: Any) -> float:
    try:
        return float(value)
    except OverflowError:  # a whole number of hundreds of digits
        return float("inf")


def read_booleans(values: Any) -> np.ndarray:
    """Return float64 `[N]`: 1 for true, 0 for false, NaN for what is missing or neither."""
    text = text_of(values).astype(object).str.lower()
    return text.map(dict.fromkeys(_TRUE, 1.0) | dict.fromkeys(_FALSE, 0.0)).to_numpy(np.float64)


_TRUE, _FALSE = ("true", "1", "yes", "y", "t"), ("false", "0", "no", "n", "f")


def read_dates(values: Any, form: str) -> np.ndarray:
    """Return datetime64[us] `[N]` without a zone, NaT for what is missing or no date."""
    import pandas as pd

    if pd.api.types.is_datetime64_any_dtype(values.dtype):
        read = pd.to_datetime(values, utc=True).dt.tz_localize(None)
    else:
        text = text_of(values)
        read = parse_dates(text, form)
        if form != ISO and read.isna().to_numpy().any():
            # programs send ISO whatever the training's file had
            read = read.fillna(parse_dates(text.where(read.isna(), None), ISO))
    return np.asarray(read.to_numpy("datetime64[us]"))


def _rows(values: Any, mask: np.ndarray) -> str:
    count, first = int(mask.sum()), values.index[int(np.argmax(mask))] + 1
    return f"row {first}" if count == 1 else f"{count:,} rows (first: {first})"


def _more(count: int) -> str:
    return f" ({count:,} such values in all)" if count > 1 else ""
