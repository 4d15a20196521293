"""CSV and Parquet tables: one target column, every other column a feature."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from crossreg.core.errors import UserError, nearest
from services.data.memory import require_memory
from services.data.raw import Raw, encode

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["load_table"]

TARGET_NAMES = ("target", "label", "y", "class")
MAX_INTEGER_CLASSES = 20  # an integer target with more distinct values is a quantity
MAX_CATEGORIES = 1_000  # a text column with more distinct values is a name or an id, and would fill memory


def load_table(path: Path, target: str | None) -> Raw:
    """Load a table.

    Number columns become one float32 feature each; text, boolean and categorical columns one feature per
    category. The task is classification where the target is text, boolean, categorical, or integer with at
    most 20 distinct values; otherwise regression.

    Args:
        path: A .csv with a header line, or a .parquet file.
        target: The column to predict; None takes the only one named target, label, y or class.

    Raises:
        UserError: Unreadable file, unknown target, missing values, or a column of another kind.
    """
    frame = _read(path)
    column = _target_column(path, frame, target)
    if frame.empty:
        raise UserError(f"{path}: the table has {len(frame)} rows; at least one example is needed")
    _require_complete(path, frame)
    x = _features(path, frame.drop(columns=column))
    y = frame[column]
    if _is_number(y) and not (y.dtype.kind in "iu" and y.nunique() <= MAX_INTEGER_CLASSES):
        return Raw(str(path), x, _numbers(path, column, y)[:, None], ())
    _require_categories(path, column, y)
    # As numbers, integer classes sort 2 before 10; everything else sorts as text.
    classes, (codes,) = encode(str(path), y.to_numpy(np.int64) if _is_number(y) else y.astype(str).to_numpy(str))
    return Raw(str(path), x, codes, classes)


def _read(path: Path) -> pd.DataFrame:
    import pandas as pd

    try:
        # low_memory would guess each column's type piece by piece and may end up with several.
        is_csv = path.suffix.lower() == ".csv"
        frame = pd.read_csv(path, low_memory=False) if is_csv else _read_parquet(path)
        # rows longer than the header: pandas takes what is left of it for an index, and shifts every column
        if is_csv and not isinstance(frame.index, pd.RangeIndex):
            raise UserError(f"{path}: rows have more fields than the header has names; name every column")
        frame.columns = frame.columns.astype(str)
    except UserError:
        raise
    # pandas, pyarrow and the text decoder each raise their own exceptions for a damaged file.
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a {path.suffix.lower()[1:]} table ({error})") from error
    for column, is_repeated in zip(frame.columns, frame.columns.duplicated(), strict=True):
        if is_repeated:
            raise UserError(f"{path}: column {column!r} occurs twice; names must differ")
        # Mostly a row number, which gives the target away wherever rows are sorted by it.
        if column.startswith("Unnamed: "):
            raise UserError(f"{path}: a column has no name ({column!r}); drop it if it is an index, or name it")
    return frame


def _read_parquet(path: Path) -> pd.DataFrame:
    import pandas as pd
    from pyarrow import parquet

    about = parquet.read_metadata(path)
    # a constant column of any length fits into a few bytes
    require_memory(str(path), "the table", about.num_rows * about.num_columns * 8)
    return pd.read_parquet(path)


def _target_column(path: Path, frame: pd.DataFrame, target: str | None) -> str:
    columns = list(frame.columns)
    listed = ", ".join(columns)
    if target is None:
        plausible = [column for column in columns if column.lower() in TARGET_NAMES]
        if len(plausible) != 1:
            raise UserError(f"{path}: which column is the target? pass --target with one of: {listed}")
        target = plausible[0]
    if target not in columns:
        raise UserError(f"{path}: no column {target!r}{nearest(target, columns)}; the columns are: {listed}")
    if len(columns) == 1:
        raise UserError(f"{path}: {target!r} is the only column; at least one feature beside the target is needed")
    return target


def _require_complete(path: Path, frame: pd.DataFrame) -> None:
    missing = frame.isna().sum()
    missing = missing[missing > 0]
    if len(missing):
        column, count = missing.index[0], int(missing.iloc[0])
        others = f" and {len(missing) - 1} more columns have some" if len(missing) > 1 else ""
        raise UserError(
            f"{path}: column {column!r} has {count} missing value{'s' * (count != 1)} (NaN){others}; "
            "fill them or drop those rows or columns"
        )


def _features(path: Path, frame: pd.DataFrame) -> np.ndarray:
    import pandas as pd

    categorical = [column for column in frame.columns if not _is_number(frame[column])]
    for column in categorical:
        _require_categories(path, column, frame[column])
    columns = {
        column: frame[column].astype(str) if column in categorical else _numbers(path, column, frame[column])
        for column in frame.columns
    }
    # With categories fixed to sorted text, the columns do not depend on row order or unused categories.
    encoded = pd.get_dummies(pd.DataFrame(columns), columns=categorical, dtype=np.float32)
    return encoded.to_numpy(np.float32)


def _is_number(column: pd.Series) -> bool:
    from pandas.api import types

    return types.is_numeric_dtype(column) and not types.is_bool_dtype(column)


def _numbers(path: Path, name: str, column: pd.Series) -> np.ndarray:
    if column.dtype.kind not in "iuf":
        raise UserError(f"{path}: column {name!r} has dtype {column.dtype}; numbers must be real")
    with np.errstate(over="ignore"):
        values = column.to_numpy(np.float32)
    infinite = ~np.isfinite(values)
    if infinite.any():
        row = int(np.argmax(infinite))
        raise UserError(
            f"{path}: column {name!r} is {column.iloc[row]} in data row {row + 1} "
            f"({int(infinite.sum())} such values in all); values must be finite float32 numbers"
        )
    return values


def _require_categories(path: Path, name: str, column: pd.Series) -> None:
    from pandas.api import types

    is_text = types.is_string_dtype(column) or isinstance(column.dtype, types.CategoricalDtype)
    if not (is_text or types.is_bool_dtype(column) or _is_number(column)):
        raise UserError(
            f"{path}: column {name!r} has dtype {column.dtype}; allowed are numbers, text, booleans and "
            "categories: convert it to numbers or drop it"
        )
    if (count := column.nunique()) > MAX_CATEGORIES:
        raise UserError(
            f"{path}: column {name!r} has {count} distinct values, more than the {MAX_CATEGORIES} that are "
            "encoded as categories; drop it if it is a name or an id, convert it if it is a number"
        )
