"""CSV and Parquet tables: columns to features, the task rule, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crossreg.core.errors import UserError
from services.data import DataConfig, load_data
from services.data.tables import MAX_CATEGORIES, load_table

N = 60
FRAME = pd.DataFrame(
    {
        "size": np.arange(N) / 7,
        "colour": ["red", "green", "blue"] * 20,
        "label": ["yes", "no"] * 30,
        "tall": [True, False, False] * 20,
        "count": range(N),
    }
)


def write(tmp_path, frame, kind="csv"):
    path = tmp_path / f"table.{kind}"
    if kind == "csv":
        frame.to_csv(path, index=False)
    else:
        frame.to_parquet(path)
    return path


@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_columns_become_features(tmp_path, kind):
    raw = load_table(write(tmp_path, FRAME, kind), None)
    assert raw.classes == ("no", "yes")
    assert raw.y.tolist() == [1, 0] * 30
    # Numbers first, then one column per category, both in the order of the table.
    assert raw.x.dtype == np.float32
    np.testing.assert_allclose(raw.x[:, 0], FRAME["size"], rtol=1e-6)
    np.testing.assert_array_equal(raw.x[:, 1], FRAME["count"])
    blue_green_red = np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]] * 20)
    np.testing.assert_array_equal(raw.x[:, 2:5], blue_green_red)
    np.testing.assert_array_equal(raw.x[:, 5:], np.array([[0, 1], [1, 0], [1, 0]] * 20))


def test_csv_and_parquet_agree_through_load_data(tmp_path):
    loaded = [load_data(DataConfig(name=str(write(tmp_path, FRAME, kind)))) for kind in ("csv", "parquet")]
    assert loaded[0].fingerprint == loaded[1].fingerprint
    assert loaded[0].input_shape == (7,)


def test_rows_stay_together_whatever_the_index(tmp_path):
    frame = FRAME.set_axis([5] * 30 + list(range(30)))
    raw = load_table(write(tmp_path, frame, "parquet"), "count")
    np.testing.assert_allclose(raw.x[:, 0], raw.y[:, 0] / 7, rtol=1e-6)


@pytest.mark.parametrize(
    ("values", "task"),
    [
        (["a", "b"], "classification"),
        ([True, False], "classification"),
        ([0, 1, 2], "classification"),
        (range(20), "classification"),
        (range(30), "regression"),
        ([0.5, 1.5], "regression"),
        ([0.0, 1.0], "regression"),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_target_decides_the_task(tmp_path, values, task, kind):
    frame = FRAME.assign(label=list(values) * (N // len(values)))
    raw = load_table(write(tmp_path, frame, kind), "label")
    assert ("classification" if raw.classes else "regression") == task
    assert raw.y.dtype == (np.int64 if raw.classes else np.float32)


def test_integer_classes_are_in_numeric_order(tmp_path):
    raw = load_table(write(tmp_path, FRAME.assign(label=[10, 2, 9] * 20)), None)
    assert raw.classes == ("2", "9", "10")
    assert raw.y[:3].tolist() == [2, 0, 1]


def test_categories_are_read_from_parquet(tmp_path):
    frame = FRAME.assign(colour=FRAME["colour"].astype("category"), label=FRAME["label"].astype("category"))
    raw, plain = (load_table(write(tmp_path, table, "parquet"), None) for table in (frame, FRAME))
    np.testing.assert_array_equal(raw.x, plain.x)
    np.testing.assert_array_equal(raw.y, plain.y)


@pytest.mark.parametrize("name", ["target", "Label", "y", "CLASS"])
def test_a_plausible_target_is_found(tmp_path, name):
    raw = load_table(write(tmp_path, FRAME.rename(columns={"label": name})), None)
    assert raw.classes == ("no", "yes")


def missing(frame, column, count):
    return frame.assign(**{column: frame[column].where(np.arange(N) >= count)})


@pytest.mark.parametrize(
    ("frame", "target", "message"),
    [
        (
            FRAME,
            "labl",
            "no column 'labl'; did you mean 'label'?; the columns are: size, colour, label, tall",
        ),
        (FRAME.drop(columns="label"), None, "pass --target with one of: size, colour, tall, count"),
        (FRAME.assign(y=0), None, "which column is the target?"),
        (missing(FRAME, "size", 3), None, "column 'size' has 3 missing values (NaN); "),
        (missing(FRAME, "label", 1), None, "column 'label' has 1 missing value (NaN); "),
        (
            missing(missing(FRAME, "size", 3), "colour", 2),
            None,
            "'size' has 3 missing values (NaN) and 1 more",
        ),
        (FRAME.assign(size=[1.0, np.inf] + [0.0] * 58), None, "column 'size' is inf in data row 2 (1 such"),
        (FRAME.assign(size=[1e300] * 60), None, "column 'size' is 1e+300 in data row 1"),
        (FRAME.assign(label=[-np.inf] + [0.5] * 59), None, "column 'label' is -inf in data row 1"),
        (FRAME[["label"]], None, "'label' is the only column"),
        (FRAME.iloc[:0], None, "the table has 0 rows"),
        (FRAME.assign(label="yes"), None, "'yes' is the only class"),
        (FRAME.assign(label=["yes"] * 59 + ["no"]), None, "class 'no' has 1 training example"),
        (FRAME.rename(columns={"size": ""}), None, "a column has no name ('Unnamed: 0')"),
    ],
)
def test_what_is_refused(tmp_path, frame, target, message):
    with pytest.raises(UserError) as error:
        load_data(DataConfig(name=str(write(tmp_path, frame)), target=target))
    assert message in str(error.value)
    assert "table.csv" in str(error.value)


def test_dates_are_refused(tmp_path):
    frame = FRAME.assign(day=pd.date_range("2020-01-01", periods=N))
    with pytest.raises(UserError, match="column 'day' has dtype datetime64"):
        load_table(write(tmp_path, frame, "parquet"), None)


def test_names_and_ids_are_refused(tmp_path):
    num = MAX_CATEGORIES + 1
    frame = pd.DataFrame({"id": [f"n{i}" for i in range(num)], "label": (["a", "b"] * num)[:num]})
    with pytest.raises(UserError, match=f"column 'id' has {num} distinct values, more than the {MAX_CATEGORIES}"):
        load_table(write(tmp_path, frame), None)


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfe\x00a,b\n\x80", b"PAR1 and no more"])
def test_unreadable_files_are_refused(tmp_path, kind, content):
    path = tmp_path / f"table.{kind}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"table\.{kind}: (cannot be read as a {kind} table|.*target)"):
        load_table(path, None)
