"""Delimited text files to a frame of text, with what makes them ambiguous refused or said; pandas does the reading."""

from __future__ import annotations

import csv
import io
import re
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

from crossreg.core.errors import UserError, quoted

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["read_delimited"]

_DELIMITERS = {",": "commas", ";": "semicolons", "\t": "tabs", "|": "bars"}
_LOOKED_AT = 50  # lines
SEMICOLONS = "separated by semicolons"
"""Key of a frame's `attrs`: where commas are decimal marks, points often stand between thousands."""
_SAYS_SEPARATOR = re.compile(r"sep=([,;\t|])\r?\n")  # as Excel has it


def read_delimited(path: Path, notes: list[str]) -> pd.DataFrame:
    """Return the rows of a text file as text, "" where nothing is written.

    Args:
        path: the file; its first line names the columns.
        notes: where is said how it was read, where that is not UTF-8 with commas.

    Raises:
        UserError: no text, no names in the first line, or rows of another number of fields.
    """
    import pandas as pd

    text = _decoded(path, notes)
    told = _SAYS_SEPARATOR.match(text)
    text = text[told.end() :] if told else text
    delimiter = told[1] if told else _delimiter(path, text)
    if delimiter != ",":
        notes.append(f"fields are separated by {_DELIMITERS[delimiter]}")
    names, body = _header(path, text, delimiter)
    frame = _rows(path, body, delimiter, names)
    frame.columns = pd.Index(names)
    frame = _unnamed(path, frame, notes)
    frame.attrs[SEMICOLONS] = delimiter == ";"
    return frame


def _decoded(path: Path, notes: list[str]) -> str:
    raw = path.read_bytes()
    if b"\0" in raw[:4096] and not raw.startswith((b"\xff\xfe", b"\xfe\xff")):
        raise UserError(f"{path}: cannot be read as a table: it holds zero bytes, so it is no text")
    encoding = "utf-16" if raw.startswith((b"\xff\xfe", b"\xfe\xff")) else "utf-8-sig"
    try:
        text = raw.decode(encoding)
        if encoding == "utf-16":
            notes.append("is UTF-16")
        return text
    except UnicodeDecodeError as error:
        if encoding == "utf-16":
            raise UserError(f"{path}: cannot be read as a table: damaged UTF-16 ({error})") from None
        line = error.object[: error.start].count(b"\n") + 1
    text = raw.decode("cp1252", errors="replace")
    notes.append(f"is not UTF-8 (line {line}): read as Windows-1252; save it as UTF-8 if letters look wrong")
    return text


def _delimiter(path: Path, text: str) -> str:
    """Return what separates the fields: what splits the first lines into most fields, all into as many."""
    lines = io.StringIO(text[: 2**20], newline="")
    sample = [line for line, _ in zip(lines, range(_LOOKED_AT), strict=False)]
    best, fields = ",", 1
    for delimiter in _DELIMITERS:
        try:
            counts = [len(row) for row in csv.reader(sample, delimiter=delimiter) if row]
        except csv.Error:  # a field of more than 131,072 characters
            continue
        # the last record may be cut off where it spans lines
        if counts and min(counts[:1]) > fields and len(set(counts[:-1] or counts)) == 1:
            best, fields = delimiter, counts[0]
    # R's tables have a name less than fields
    by_spaces = {len(line.split()) for line in sample[1:] if line.strip()}
    if fields == 1 and len(by_spaces) == 1 and min(by_spaces) > 1 and len(sample[0].split()) > 1:
        raise UserError(
            f"{path}: fields seem to be separated by spaces, {min(by_spaces)} in each line; separate them by commas, "
            "semicolons, tabs or bars"
        )
    return best


def _header(path: Path, text: str, delimiter: str) -> tuple[list[str], str]:
    """Return the names in the first line, and what follows it."""
    stream = io.StringIO(text, newline="")
    # a name in quotes may hold a line's end: the reader takes the lines it needs
    try:
        row: list[str] = next((row for row in csv.reader(iter(stream.readline, ""), delimiter=delimiter) if row), [])
    except csv.Error as error:
        raise UserError(f"{path}: cannot be read as a table ({error}); the first line must name the columns") from None
    names = [name.strip() for name in row]
    if not names:
        raise UserError(f"{path}: is empty; the first line must name the columns")
    decimals = [name for name in names if _is_number(name) and not name.isdecimal()]
    if decimals or all(map(_is_number, names)):
        raise UserError(
            f"{path}: the first line holds numbers ({', '.join((decimals or names)[:3])}), where names of columns are "
            "expected; write a line of names above it"
        )
    for name in names:
        if name and names.count(name) > 1:
            raise UserError(f"{path}: column {name!r} occurs twice; names must differ")
    return names, text[stream.tell() :]


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def _rows(path: Path, body: str, delimiter: str, names: list[str]) -> pd.DataFrame:
    """Return the fields as text; unlike pandas, pyarrow refuses rows of another number of fields."""
    import pandas as pd
    import pyarrow as pa
    from pyarrow import csv as arrow

    places = [str(place) for place in range(len(names))]
    if not body.strip("\r\n"):
        return pd.DataFrame(columns=places, dtype=object)
    try:
        table = arrow.read_csv(
            io.BytesIO(body.encode()),
            read_options=arrow.ReadOptions(column_names=places),
            parse_options=arrow.ParseOptions(delimiter=delimiter, newlines_in_values=True),
            convert_options=arrow.ConvertOptions(
                column_types=dict.fromkeys(places, pa.string()), strings_can_be_null=False
            ),
        )
    except pa.ArrowInvalid as error:
        said = " ".join(str(error).split())[:300]
        raise UserError(
            f"{path}: {_counted(body, delimiter, names) or f'cannot be read as a table ({said})'}"
        ) from None
    return table.to_pandas()


def _counted(body: str, delimiter: str, names: list[str]) -> str:
    rows = (row for row in csv.reader(io.StringIO(body, newline=""), delimiter=delimiter) if row)
    for index, row in enumerate(_until_an_error(rows)):
        if len(row) != len(names):
            return (
                f"data row {index + 1} has {len(row)} fields, and there are {len(names)} names "
                f"({', '.join(map(quoted, names[:4]))}{', ...' if len(names) > 4 else ''}); "
                "name every column, and quote text that holds the separator"
            )
    return ""


def _until_an_error(rows: Iterator[list[str]]) -> Iterator[list[str]]:
    try:
        yield from rows
    except csv.Error:  # pyarrow has said what it is
        return


def _unnamed(path: Path, frame: pd.DataFrame, notes: list[str]) -> pd.DataFrame:
    """Drop columns without a name that hold nothing or count the rows, as programs write them."""
    places = [place for place, name in enumerate(frame.columns) if name == ""]
    for place in places:
        column = frame.iloc[:, place]
        if (column == "").all():
            notes.append(f"column {place + 1} has no name and no values: dropped")
        elif counts_rows(column):
            notes.append(f"column {place + 1} has no name and counts the rows: dropped")
        elif place == 0 and column.nunique() == len(column):
            seen = quoted(str(column.iloc[0]))
            notes.append(
                f"column 1 has no name, and its values ({seen}, ...) all differ: dropped; name it to have it read"
            )
        else:
            raise UserError(
                f"{path}: column {place + 1} has no name (it begins with {quoted(str(column.iloc[0]))}); name it"
            )
    return frame.iloc[:, [place for place in range(frame.shape[1]) if place not in places]]


def counts_rows(column: pd.Series) -> bool:
    """Say whether a column's text counts the rows, from 0 or 1."""
    return any((column == [str(row + start) for row in range(len(column))]).all() for start in (0, 1))
