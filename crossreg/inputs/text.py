"""Numbers, dates and missing values as people write them; pandas does the reading.

A way of writing is taken where no other reads the same text differently.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

import numpy as np

__all__ = [
    "DATE_FORMATS",
    "ISO",
    "MINUS",
    "UNITS",
    "NumberFormat",
    "date_formats",
    "grouped_by_points",
    "number_formats",
    "parse_dates",
    "text_of",
]

MISSING = frozenset(["", "NA", "N/A", "n/a", "#N/A", "<NA>", "NaN", "nan", "NULL", "null", "None", "NaT"])
"""Text that stands for a missing value, in every kind of column."""

UNITS = frozenset(
    re.split(
        " ",
        "% ‰ $ € £ ¥ USD EUR GBP CHF JPY kg g mg µg lb lbs oz t km m cm mm µm mi ft in yd s ms min h hr hrs d days yr "
        "yrs years °C °F °K K l ml dl L mL dL mg/dl mg/dL mmol/l mmol/L g/l g/dl W kW MW kWh V mV A mA Hz kHz MHz GHz "
        "bpm mmHg Pa hPa kPa bar J kJ kcal cal N kB MB GB TB KB px dB rpm mph km/h m/s m² m2 km² ha m³ m3",
    )
)
"""What may stand behind every number of a column."""

CURRENCIES = frozenset(["$", "€", "£", "¥", "USD", "EUR", "GBP", "CHF", "JPY"])
"""What may stand before them: A1 and B2 are no numbers."""

_AFFIXES = re.compile(r"([^\d+\-.,]*?)\s*([+-]?[\d.,'\s]*\d[\d.,]*(?:[eE][+-]?\d+)?)\s*(\D*|\D+[²³2-3]?)")
MINUS = "\u2212"  # as typesetters write it
ISO = "ISO8601"
DIGITS = "%Y%m%d"  # read where that is asked for alone: such are numbers otherwise
QUARTER = "%YQ%q"  # Python has no letter for quarters
DATE_FORMATS = (
    ISO, "%Y/%m/%d", "%Y/%m/%d %H:%M", "%Y/%m/%d %H:%M:%S", "%d.%m.%Y", "%d.%m.%Y %H:%M", "%d.%m.%Y %H:%M:%S",
    "%d/%m/%Y", "%m/%d/%Y", "%d/%m/%Y %H:%M", "%m/%d/%Y %H:%M", "%d/%m/%Y %H:%M:%S", "%m/%d/%Y %H:%M:%S",
    "%m/%d/%Y %I:%M %p", "%d/%m/%Y %I:%M %p", "%d-%m-%Y", "%m-%d-%Y", "%d-%m-%Y %H:%M", "%m-%d-%Y %H:%M",
    "%d %b %Y", "%d %B %Y", "%b %d, %Y", "%B %d, %Y", "%b %d %Y", "%B %d %Y", "%d-%b-%Y", "%b-%d-%Y", "%d-%B-%Y",
    "%Y %b", "%b %Y", "%B %Y", "%Y-%m", QUARTER, DIGITS,
)  # fmt: skip
_DATE_LIKE = re.compile(
    r"\d{1,4}[./-]\d{1,2}([./-]\d{1,4}.*)?|\d{1,2}[ -][A-Za-z]{3,9}[ -]\d{4}|\d{4}[ -][A-Za-z]{3,9}"
    r"|[A-Za-z]{3,9}[ -](\d{1,2},?[ -])?\d{4}|\d{4}[ -]?Q[1-4]"
)


_ISO_LIKE = r"\d{4}-\d{1,2}(-\d{1,2}.*)?"


def text_of(values: Any) -> Any:
    """Return a column's values as text without surrounding space, and none where one is missing.

    A whole number reads the same whatever type holds it: `1`, `1.0` as a float and `"1"` are "1".

    Args:
        values: a pandas Series of any type, length N.

    Returns:
        A Series of length N, with the same index.
    """
    import pandas as pd

    if pd.api.types.is_float_dtype(values.dtype):
        values = values.astype("float64")
    found = values.astype(object).where(values.notna(), None)
    return found.map(_text)


def _text(value: Any) -> str | None:
    if isinstance(value, str):
        value = value.strip()
        return None if value in MISSING else value
    if isinstance(value, float | np.floating):
        if np.isnan(value):
            return None
        if float(value).is_integer() and -(2**53) < float(value) < 2**53:
            return str(int(value))
    return None if value is None else str(value)


@dataclass(frozen=True)
class NumberFormat:
    """How the numbers of a column are written.

    Attributes:
        decimal: "." or ",".
        thousands: what stands between groups of three digits; "" where nothing does.
        unit: what stands before or after every number, as "kg" or "$"; "" where nothing does.
    """

    decimal: str = "."
    thousands: str = ""
    unit: str = ""

    def read(self, text: Any) -> Any:
        """Return numbers, NaN for what is none in this format.

        Args:
            text: Series of text, see `text_of`.

        Returns:
            float64 Series.
        """
        import pandas as pd

        plain = text.str.replace(MINUS, "-")
        if self.unit:
            plain = plain.map(lambda one: _without(one, self.unit), na_action="ignore")
        if self.thousands or self.decimal != ".":
            plain = plain.map(self._plain, na_action="ignore")
        else:
            # what Python takes for numbers and people do not
            plain = plain.where(~plain.str.contains(r"[_xX]|^0\d", regex=True, na=False), "?")
        return pd.to_numeric(plain, errors="coerce").astype("float64")

    def _plain(self, text: str) -> str:
        if not self.matches(text):
            return "?"
        return (text.replace(self.thousands, "") if self.thousands else text).replace(self.decimal, ".")

    def matches(self, text: str) -> bool:
        """Say whether a text without unit is a number in this format."""
        groups = rf"[1-9]\d{{0,2}}(?:{re.escape(self.thousands)}\d{{3}})+|" if self.thousands else ""
        pattern = rf"[+-]?(?:{groups}0|[1-9]\d*|0)(?:{re.escape(self.decimal)}\d+)?"
        return re.fullmatch(pattern, text) is not None


def _without(text: str, unit: str) -> str:
    """Return a number's text without its unit; a number that comes without it is taken as it is."""
    if text.startswith(unit):
        return text[len(unit) :].strip()
    return text.removesuffix(unit).strip()


_MARKS = (" ", "'", "\u00a0", "\u202f")  # the last two do not break a line
_STYLES = ((".", ""), (".", ","), (",", ""), (",", "."), *((decimal, mark) for mark in _MARKS for decimal in ".,"))


def number_formats(text: Any) -> list[NumberFormat]:
    """Return the formats in which all of a column's values are numbers and which read them differently; best first.

    One of them: the column is read. Several: it could be meant in either way. None: it does not hold numbers.

    Args:
        text: Series of text, see `text_of`.
    """
    given = text.dropna().str.replace(MINUS, "-")
    if not len(given):
        return []
    unit = _unit(given)
    if unit is None:
        return []
    read: dict[bytes, NumberFormat] = {}
    for decimal, thousands in _STYLES:
        form = NumberFormat(decimal, thousands, unit)
        # reading is slow, and a mark that no value has says nothing
        if (decimal, thousands) != (".", "") and not given.str.contains(thousands or decimal, regex=False).any():
            continue
        values = form.read(given)
        if not values.isna().any():
            read.setdefault(values.to_numpy().tobytes(), form)
            if (decimal, thousands) == (".", ""):
                return [form]
    return list(read.values())


def grouped_by_points(text: Any) -> bool:
    """Say whether numbers may have points between thousands though they read as plain ones: 900, 1.004, 3.487.

    Args:
        text: Series of text, see `text_of`.
    """
    given = text.dropna()
    point = given.str.contains(".", regex=False)
    return bool(point.any() and given.str.fullmatch(r"[+-]?([1-9]\d{0,2}\.\d{3}|\d{1,3})").all())


def _unit(given: Any) -> str | None:
    """Return the unit that stands beside every number, "" where none does; None where these are no numbers."""
    # infinity has no digit, and is refused where numbers are read
    written = given[given.str.contains(r"\d", regex=True)]
    found = _AFFIXES.fullmatch(written.iloc[0]) if len(written) else None
    if found is None:
        return None
    before, _, after = (part.strip() for part in found.groups())
    unit = before or after
    if not unit:
        return ""
    if (before and after) or unit not in (CURRENCIES if before else UNITS):
        return None
    starts = bool(before)
    return unit if all(one.startswith(unit) if starts else one.endswith(unit) for one in given) else None


def parse_dates(text: Any, form: str) -> Any:
    """Return datetimes without a zone (those with one in UTC), NaT for what is none in this format.

    Args:
        text: Series of text, see `text_of`.
        form: one of `DATE_FORMATS`.
    """
    import pandas as pd

    if form == QUARTER:
        found = text.astype(object).str.extract(r"^(\d{4})[ -]?Q([1-4])$").astype("float64")
        months = found[0] * 12 + found[1] * 3 - 3
        text = months.map(lambda one: f"{int(one) // 12}-{int(one) % 12 + 1:02}", na_action="ignore")
        form = "%Y-%m"
    if form == ISO:
        # "now", "today" and years alone are dates to pandas too
        text = text.astype(object).where(text.str.fullmatch(_ISO_LIKE).fillna(False).astype(bool), None)
    return pd.to_datetime(text, format=form, errors="coerce", utc=True).dt.tz_localize(None)


def date_formats(text: Any) -> list[str]:
    """Return the formats in which all of a column's values are dates and which read them differently."""
    given = text.dropna().drop_duplicates()
    if not len(given) or not given.head(20).str.fullmatch(_DATE_LIKE.pattern).all():
        return []
    read: dict[bytes, str] = {}
    for form in DATE_FORMATS:
        found = parse_dates(given, form)
        if found.notna().all():
            read.setdefault(found.to_numpy("datetime64[us]").tobytes(), form)
            if form == ISO:
                break
    return list(read.values())
