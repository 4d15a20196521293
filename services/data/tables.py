"""CSV and Parquet tables: one target column, every other column a feature of a kind that its values decide."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossreg.core.errors import UserError, nearest, quoted
from crossreg.inputs import Ignored
from crossreg.inputs.text import NumberFormat, grouped_by_points, number_formats, text_of
from crossreg.services.data.config import DataConfig
from crossreg.services.data.delimited import SEMICOLONS, read_delimited
from crossreg.services.data.kinds import (
    Fitted,
    Unused,
    ambiguous,
    decide,
    is_plain,
    mostly_numbers,
    odd_number,
    said_of,
)
from crossreg.services.data.memory import require_memory
from crossreg.services.data.raw import Raw, Rows
from crossreg.services.data.targets import MAX_INTEGER_CLASSES, read_targets

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Labels", "labels_of", "load_table", "read_frame", "rows_of", "table_of", "target_of", "tidied"]

TARGET_NAMES = ("target", "label", "y", "class")


def load_table(path: Path, config: DataConfig) -> Raw:
    """Load a table.

    Args:
        path: a .csv or .tsv with a line of names, or a .parquet file.
        config: target, task, and which columns are read how.

    Raises:
        UserError: unreadable file, unknown column, a target with missing values, or a column of no known kind.
    """
    notes: list[str] = []
    return table_of(str(path), read_frame(path, notes), config, notes)


@dataclass(frozen=True, eq=False)
class Labels:
    """What a table's rows are trained to give, and by what they are split.

    Attributes:
        target: the column.
        classes: names by index; empty for regression.
        y: int64 `[N]` or float64 `[N, 1]`.
        form: how the target's numbers are written.
        groups: as of `Raw`.
        order: as of `Raw`.
    """

    target: str
    classes: tuple[str, ...]
    y: np.ndarray
    form: NumberFormat
    groups: np.ndarray | None
    order: np.ndarray | None


def labels_of(source: str, frame: pd.DataFrame, target: str, config: DataConfig, notes: list[str]) -> Labels:
    """Return the labels of a frame that has the target and the columns that splits are made by."""
    values, form = _target(source, frame[target], config, notes)
    classes, (y,) = read_targets(source, f"target {target!r}", [values], config.task, notes)
    groups = order = None
    if config.split_by is not None:
        groups = _complete(source, frame, config.split_by, "--split-by").to_numpy(object)
    if config.time_order is not None:
        order = _order(source, _complete(source, frame, config.time_order, "--time-order"), config.time_order)
    return Labels(target, classes, y, form, groups, order)


def target_of(source: str, frame: pd.DataFrame, config: DataConfig) -> str:
    """Return the target's name, once all columns that are named are there.

    Args:
        source: what messages call the table.
        frame: has all columns.
        config: names some.

    Raises:
        UserError: no such column, or none that is clearly the target.
    """
    target = _target_column(source, frame, config.target)
    _check_names(source, frame, config, target)
    return target


def table_of(source: str, frame: pd.DataFrame, config: DataConfig, notes: list[str]) -> Raw:
    """Return what a frame holds, see `load_table`."""
    if frame.empty:
        raise UserError(f"{source}: the table has {len(frame)} rows; at least one example is needed")
    labels = labels_of(source, frame, target_of(source, frame, config), config, notes)
    rows = rows_of(source, frame, labels, config, notes)
    return Raw(
        source, None, labels.y, labels.classes, table=rows, groups=labels.groups, order=labels.order, notes=notes
    )


def rows_of(source: str, frame: pd.DataFrame, labels: Labels, config: DataConfig, notes: list[str]) -> Rows:
    """Return the features of a frame whose labels, or those of a larger one, are known."""
    import pandas as pd

    target, form = labels.target, labels.form
    aside = {target: "the target"} | {name: "left out by --drop" for name in config.drop}
    if config.split_by is not None:
        aside.setdefault(config.split_by, "splits are made by it")
    if config.time_order is not None and config.time_order not in config.kinds:
        aside.setdefault(config.time_order, "splits are made by it")
    columns, ignored, missing = _columns(source, frame, aside, config.kinds)
    if frame.attrs.get(SEMICOLONS) or any("before decimals" in column.said for column in columns):
        for column in columns:
            if column.name not in config.kinds:
                _refuse_grouped(source, frame[column.name], f"--kind {column.name}=number")
        if config.task is None and not labels.classes:
            _refuse_grouped(source, frame[target], "--task regression")
    notes += [f"column {column.name!r} is read {column.said}" for column in columns if column.said]
    notes += [column.hint for column in columns if column.hint]
    names = [column.name for column in columns]
    written = (form.decimal, form.thousands, form.unit)
    typed = pd.DataFrame({column.name: column.values for column in columns})
    return Rows(source, typed, frame[names], tuple(columns), tuple(ignored), target, written, missing)


def _columns(
    source: str, frame: pd.DataFrame, aside: dict[str, str], kinds: Mapping[str, str]
) -> tuple[list[Fitted], list[Ignored], dict[str, int]]:
    """Return the columns that become features and those that do not, in the table's order, and missing values."""
    decided: dict[str, Fitted | Unused] = {}
    for name in frame.columns:
        if name not in aside:
            try:
                decided[name] = decide(frame[name], kinds.get(name))
            except UserError as error:
                raise UserError(f"{source}: {error}") from None
    if not any(isinstance(one, Fitted) for one in decided.values()):
        # what may be an id is all there is
        decided = {name: getattr(one, "otherwise", None) or one for name, one in decided.items()}
    columns = [one for one in decided.values() if isinstance(one, Fitted)]
    unused = {one.name: one.reason for one in decided.values() if isinstance(one, Unused)}
    ignored = [Ignored(name, (aside | unused)[name]) for name in frame.columns if name in aside or name in unused]
    if not columns:
        why = "; ".join(f"{one.name!r}: {one.reason}" for one in ignored[:6] if aside.get(one.name) != "the target")
        raise UserError(f"{source}: no column is left as a feature ({why})")
    return columns, ignored, {name: one.missing for name, one in decided.items()}


def _refuse_grouped(source: str, column: pd.Series, remedy: str) -> None:
    """Refuse 1.004 where it may be a thousand and four: in a file that has decimal commas or the separators of such."""
    if column.dtype.kind in "iufbM" or not grouped_by_points(text := text_of(column)):
        return
    seen = quoted(text[text.str.contains(".", regex=False, na=False)].iloc[0])
    raise UserError(
        f"{source}: column {column.name!r} holds {seen}, which may be a thousand and some, or one and a fraction; "
        f"write it without a mark between thousands, or say that these are decimals: {remedy}"
    )


def read_frame(path: Path, notes: list[str]) -> pd.DataFrame:
    """Return a file's rows: text from delimited files, typed columns from Parquet.

    Raises:
        UserError: it cannot be read.
    """
    if path.suffix.lower() != ".parquet":
        require_memory(str(path), "the table", 4 * path.stat().st_size)
        return read_delimited(path, notes)
    import pandas as pd
    from pyarrow import parquet

    try:
        about = parquet.read_metadata(path)
        # a constant column of any length fits into a few bytes
        require_memory(str(path), "the table", about.num_rows * about.num_columns * 8)
        frame = pd.read_parquet(path)
    except UserError:
        raise
    # pandas and pyarrow each raise their own exceptions for a damaged file
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a parquet table ({error})") from error
    return tidied(str(path), frame)


def tidied(source: str, frame: pd.DataFrame) -> pd.DataFrame:
    """Return a frame of typed columns as a table has them: text for names, no index, dates and numbers as such.

    Raises:
        UserError: two columns have one name.
    """
    import pandas as pd

    # what pandas keeps as an index is data with a name
    named = [name for name in frame.index.names if name is not None]
    frame = frame.reset_index(named) if named else frame.copy(deep=False)
    frame.columns = frame.columns.astype(str)
    for name in frame.columns[[pd.api.types.is_object_dtype(one) for one in frame.dtypes]]:
        held = pd.api.types.infer_dtype(frame[name], skipna=True)
        if held == "decimal":
            frame[name] = frame[name].astype("float64")
        elif held == "date":
            frame[name] = pd.to_datetime(frame[name])
    if (twice := frame.columns[frame.columns.duplicated()]).size:
        raise UserError(f"{source}: column {twice[0]!r} occurs twice; names must differ")
    return frame.reset_index(drop=True)


def _target_column(source: str, frame: pd.DataFrame, target: str | None) -> str:
    columns = list(frame.columns)
    listed = ", ".join(columns[:50]) + (f" and {len(columns) - 50} more" if len(columns) > 50 else "")
    if target is None:
        plausible = [column for column in columns if column.lower() in TARGET_NAMES]
        if len(plausible) != 1:
            raise UserError(f"{source}: which column is the target? pass --target with one of: {listed}")
        target = plausible[0]
    if target not in columns:
        raise UserError(f"{source}: no column {target!r}{nearest(target, columns)}; the columns are: {listed}")
    if len(columns) == 1:
        raise UserError(f"{source}: {target!r} is the only column; at least one feature beside the target is needed")
    return target


def _check_names(source: str, frame: pd.DataFrame, config: DataConfig, target: str) -> None:
    columns = list(frame.columns)
    asked: dict[str, Sequence[str]] = {
        "--drop": config.drop,
        "--kind": tuple(config.kinds),
        "--split-by": [config.split_by] if config.split_by else [],
        "--time-order": [config.time_order] if config.time_order else [],
    }
    for flag, names in asked.items():
        for name in names:
            if name not in columns:
                listed = ", ".join(columns[:50])
                raise UserError(f"{source}: {flag} names {name!r}{nearest(name, columns)}; the columns are: {listed}")
            if name == target:
                raise UserError(f"{source}: {flag} names {name!r}, which is the target; name another with --target")


def _target(source: str, column: pd.Series, config: DataConfig, notes: list[str]) -> tuple[np.ndarray, NumberFormat]:
    """Return the target's values, text, booleans or numbers, and how numbers are written."""
    from pandas.api import types

    plain = NumberFormat()
    if types.is_object_dtype(column.dtype) and not column.dropna().map(is_plain).all():
        seen = quoted(str(column.dropna().iloc[0]))
        raise UserError(f"{source}: the target {column.name!r} holds {seen}, which is no number, text or boolean")
    if (absent := _absent(column)).any():
        row = int(np.argmax(absent.to_numpy()))
        raise UserError(
            f"{source}: the target {column.name!r} is missing in data row {row + 1} ({int(absent.sum())} rows in all); "
            "leave out rows without a target"
        )
    if types.is_bool_dtype(column.dtype):
        return column.to_numpy(bool), plain
    if types.is_complex_dtype(column.dtype):
        raise UserError(f"{source}: the target {column.name!r} has dtype {column.dtype}; numbers must be real")
    if types.is_datetime64_any_dtype(column.dtype):
        raise UserError(f"{source}: the target {column.name!r} holds dates; make numbers of it, such as days since one")
    if types.is_numeric_dtype(column.dtype):
        return _finite(source, column, column.to_numpy()), plain
    text = text_of(column)
    forms = number_formats(text)
    if len(forms) > 1:
        raise UserError(f"{source}: the target {column.name!r} holds {ambiguous(text, forms)}")
    if forms:
        if forms[0] != plain:
            notes.append(f"target {column.name!r} is read {said_of(forms[0])}")
        return _finite(source, column, forms[0].read(text).to_numpy()), forms[0]
    if config.task == "regression" or (config.task is None and _nearly_numbers(text)):
        odd = str(odd_number(column)).partition("; leave")[0]
        raise UserError(f"{source}: the target: {odd}; mend the file, or leave those rows out")
    return text.to_numpy(str), plain


def _nearly_numbers(text: pd.Series) -> bool:
    """Say whether a target looks like a quantity with odd values: numbers beyond what classes are."""
    codes = text.str.fullmatch(r"0\d+").any()
    return bool(mostly_numbers(text) and text.nunique() > MAX_INTEGER_CLASSES and not codes)


def _finite(source: str, column: pd.Series, values: np.ndarray) -> np.ndarray:
    wrong = ~(np.abs(values.astype(np.float64)) <= np.finfo(np.float32).max)
    if wrong.any():
        row = int(np.argmax(wrong))
        raise UserError(
            f"{source}: column {column.name!r} is {values[row]} in data row {row + 1} "
            f"({int(wrong.sum())} such values in all); values must be finite float32 numbers"
        )
    return values


def _absent(column: pd.Series) -> pd.Series:
    """Say which values are missing; text may say so in words."""
    return column.isna() if column.dtype.kind in "iufbcM" else text_of(column).isna()


def _complete(source: str, frame: pd.DataFrame, name: str, flag: str) -> pd.Series:
    column = frame[name]
    absent = _absent(column).to_numpy()
    if absent.any():
        row = int(np.argmax(absent))
        raise UserError(
            f"{source}: column {name!r} of {flag} is missing in data row {row + 1}; fill it, or drop those rows"
        )
    return column if column.dtype.kind in "iufM" else text_of(column)


def _order(source: str, column: pd.Series, name: str) -> np.ndarray:
    """Return numbers or dates to sort by."""
    try:
        found = decide(column.rename(name), None)
    except UserError as error:
        raise UserError(f"{source}: {error}") from None
    one = getattr(found, "otherwise", None) or found
    if not isinstance(one, Fitted) or one.kind not in ("number", "date"):
        raise UserError(
            f"{source}: column {name!r} of --time-order holds {quoted(str(column.iloc[0]))}; it needs numbers or dates"
        )
    fitted = one.fit(column)
    return fitted.encode(column, [])[:, 0]
