"""Tables as people have them: kinds of columns, what is dropped and said, the task, and what is refused."""

from __future__ import annotations

import numpy as np
import pandas as pd
import pytest

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data
from crossreg.services.data.kinds import MAX_CATEGORIES

N = 60
FRAME = pd.DataFrame(
    {
        "size": np.arange(N) / 7,
        "colour": ["red", "green", "blue"] * 20,
        "label": ["yes", "no"] * 30,
        "tall": [True, False, False] * 20,
        "count": np.arange(N) % 13,
    }
)


def write(tmp_path, frame, kind="csv"):
    path = tmp_path / f"table.{kind}"
    if kind == "parquet":
        frame.to_parquet(path)
    else:
        frame.to_csv(path, index=False, sep="\t" if kind == "tsv" else ",")
    return path


def load(path, **options):
    return load_data(DataConfig(name=str(path), **options))


def text(tmp_path, content, name="table.csv", encoding="utf-8"):
    path = tmp_path / name
    path.write_text(content, encoding)
    return path


def column(tmp_path, values, **options):
    """Load a table of one column beside a number and a label."""
    quoted = "\n".join(f'"{value}",{row / 7},{"ab"[row % 2]}' for row, value in enumerate(values))
    return load(text(tmp_path, f"v,size,label\n{quoted}\n"), target="label", **options)


def features(data, name):
    """Return the features of a column in all splits, sorted by the column `size`."""
    table = data.inputs
    x = np.concatenate([data.train.x, data.reg.x, data.test.x])
    names = list(table.features)
    own = next(one for one in table.columns if one.name == name)
    order = np.argsort(x[:, names.index("size")])
    return x[order][:, [names.index(feature) for feature in own.features]]


@pytest.mark.parametrize("kind", ["csv", "tsv", "parquet"])
def test_columns_become_features_in_the_tables_order(tmp_path, kind):
    data = load(write(tmp_path, FRAME, kind))
    assert data.classes == ("no", "yes")
    assert data.inputs.features == ("size", "colour = blue", "colour = green", "colour = red", "tall", "count")
    assert data.train.x.dtype == np.float32
    np.testing.assert_allclose(features(data, "size")[:, 0], FRAME["size"], rtol=1e-6)
    np.testing.assert_array_equal(features(data, "colour"), np.array([[0, 0, 1], [0, 1, 0], [1, 0, 0]] * 20))
    np.testing.assert_array_equal(features(data, "tall")[:, 0], FRAME["tall"])
    np.testing.assert_array_equal(features(data, "count")[:, 0], FRAME["count"])


def test_csv_and_parquet_agree(tmp_path):
    loaded = [load(write(tmp_path, FRAME, kind)) for kind in ("csv", "tsv", "parquet")]
    assert len({data.fingerprint for data in loaded}) == 1
    assert loaded[0].input_shape == (6,)


def test_rows_stay_together_whatever_the_index(tmp_path):
    frame = FRAME.assign(count=np.arange(N) * 3 + 0.5).set_axis([5] * 30 + list(range(30)))
    data = load(write(tmp_path, frame, "parquet"), target="count")
    for split in (data.train, data.reg, data.test):
        np.testing.assert_allclose(split.x[:, 0] * 21, split.y[:, 0] - 0.5, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize(
    ("values", "task", "classes"),
    [
        (["a", "b"], "classification", ("a", "b")),
        ([True, False], "classification", None),
        ([10, 2, 9], "classification", ("2", "9", "10")),
        (range(20), "classification", None),
        (range(30), "regression", ()),
        ([0.5, 1.5], "regression", ()),
        ([0.0, 1.0], "classification", ("0", "1")),
    ],
)
@pytest.mark.parametrize("kind", ["csv", "parquet"])
def test_the_target_decides_the_task(tmp_path, values, task, classes, kind):
    frame = pd.concat([FRAME.assign(label=list(values) * (N // len(values)))] * 5)
    data = load(write(tmp_path, frame, kind), target="label")
    assert data.task == task
    if classes is not None:
        assert data.classes == classes
    assert data.train.y.dtype == (np.int64 if data.classes else np.float64)


@pytest.mark.parametrize(
    ("values", "task", "said"),
    [
        ([0, 1, 2] * 20, "regression", "taken as classes; --task regression"),
        ([*range(30)] * 2, "classification", "taken as a quantity; --task classification"),
    ],
)
def test_a_task_that_could_be_the_other_is_said_and_can_be_chosen(tmp_path, values, task, said):
    path = write(tmp_path, pd.concat([FRAME.assign(label=values)] * 5))
    assert any(said in note for note in load(path).notes)
    chosen = load(path, task=task)
    assert (chosen.task, chosen.notes) == (task, ())


@pytest.mark.parametrize(
    ("values", "task", "message"),
    [
        ([0.5, 1.5] * 30, "classification", "holds 0.5; classes are text or whole numbers"),
        (["a", "b"] * 30, "regression", "holds numbers but for 'a' in data row 1"),
        ([True, False] * 30, "regression", "a regression needs numbers"),
    ],
)
def test_a_task_that_the_values_cannot_be_is_refused(tmp_path, values, task, message):
    with pytest.raises(UserError, match=message):
        load(write(tmp_path, FRAME.assign(label=values), "parquet"), target="label", task=task)


def test_categories_are_read_from_parquet(tmp_path):
    frame = FRAME.assign(colour=FRAME["colour"].astype("category"), label=FRAME["label"].astype("category"))
    assert load(write(tmp_path, frame, "parquet")).fingerprint == load(write(tmp_path, FRAME)).fingerprint


@pytest.mark.parametrize("name", ["target", "Label", "y", "CLASS"])
def test_a_plausible_target_is_found(tmp_path, name):
    assert load(write(tmp_path, FRAME.rename(columns={"label": name}))).classes == ("no", "yes")


# what a column of a text file holds, and what becomes of it


@pytest.mark.parametrize(
    ("values", "expected"),
    [
        ([f"{row},5" for row in range(N)], [row + 0.5 for row in range(N)]),
        ([f"1,{row:03},000" for row in range(N)], [1e6 + 1000 * row for row in range(N)]),
        ([f"1.{row:03},25" for row in range(N)], [1000.25 + row for row in range(N)]),
        ([f"{row + 3} kg" for row in range(N)], range(3, N + 3)),
        ([f"${row + 1000:,}.50" for row in range(N)], [1000.5 + row for row in range(N)]),
        ([f"{row + 3}%" for row in range(N)], range(3, N + 3)),
        ([f"\u2212{row + 3}" for row in range(N)], [-row - 3 for row in range(N)]),
        ([f"  {row + 3}.0 " for row in range(N)], range(3, N + 3)),
        ([f"{row}e-3" for row in range(N)], [row / 1000 for row in range(N)]),
        ([f"1 {row:03}" for row in range(N)], [1000 + row for row in range(N)]),
    ],
)
def test_numbers_are_read_as_they_are_written(tmp_path, values, expected):
    data = column(tmp_path, values)
    assert [one.kind for one in data.inputs.columns] == ["number", "number"]
    np.testing.assert_allclose(features(data, "v")[:, 0] + data.inputs.columns[0].offset, list(expected), rtol=1e-5)


@pytest.mark.parametrize(
    ("values", "kind", "size"),
    [
        (["TRUE", "false"] * 30, "boolean", 1),
        (["yes", "no"] * 30, "category", 2),
        (["007", "08540"] * 30, "category", 2),
        (["1a", "2b", "30"] * 20, "category", 3),
        (["2024-01-31", "2024-02-01", "2024-12-24"] * 20, "date", 5),
        (["31.01.2024", "24.12.2024"] * 30, "date", 5),
        (["01/31/2024", "12/24/2024"] * 30, "date", 5),
        (["2024-01-31T10:00:00Z", "2024-01-31T16:30:00+02:00"] * 30, "date", 3),
        (["3 Jan 2024", "24 Dec 2024"] * 30, "date", 5),
        (["Jan 3 2024", "Dec 24 2024"] * 30, "date", 5),
        (["Jan-1-2024", "Dec-2-2024"] * 30, "date", 5),
        (["2024 Jan", "2024 Dec"] * 30, "date", 5),
        (["Jan 2024", "Dec 2024"] * 30, "date", 5),
        (["2024-01", "2024-12"] * 30, "date", 5),
        (["2023 Q1", "2024 Q4"] * 30, "date", 5),
    ],
)
def test_kinds_of_columns(tmp_path, values, kind, size):
    data = column(tmp_path, values)
    assert data.inputs.columns[0].kind == kind
    assert len(data.inputs.columns[0].features) == size


def test_dates_are_days_and_places_on_a_circle(tmp_path):
    days = [str(np.datetime64("2023-01-01") + row * 7) for row in range(N)]
    found = features(column(tmp_path, days), "v")
    np.testing.assert_allclose(np.diff(found[:, 0]), 7, rtol=1e-6)
    np.testing.assert_allclose(found[:, 1] ** 2 + found[:, 2] ** 2, 1, rtol=1e-5)
    np.testing.assert_allclose(
        found[:, 3:], np.tile([np.sin(2 * np.pi * 6 / 7), np.cos(2 * np.pi * 6 / 7)], (N, 1)), atol=1e-5
    )  # Sundays
    year = [str(np.datetime64("2023-01-01") + row) for row in (0, 365)] * 30
    first = features(column(tmp_path, year), "v")
    np.testing.assert_allclose(first[0, 1:3], first[1, 1:3], atol=1e-6)


def test_missing_numbers_are_the_training_median_and_said_by_a_feature(tmp_path):
    values = ["" if row % 6 == 0 else row for row in range(N)]
    data = column(tmp_path, values)
    assert data.missing["v"] == 10
    found = features(data, "v")
    np.testing.assert_array_equal(found[:, 1], [row % 6 == 0 for row in range(N)])
    train = data.train.x[:, 0][data.train.x[:, 1] == 0]
    median = np.sort(train)[(len(train) - 1) // 2]
    assert (found[::6, 0] == median).all()
    assert data.inputs.columns[0].median == median


@pytest.mark.parametrize("mark", ["", "NA", "nan", "NULL", "None", "n/a"])
def test_missing_categories_are_one_of_their_own(tmp_path, mark):
    data = column(tmp_path, ["red", mark, "blue"] * 20)
    assert data.inputs.columns[0].features == ("v = blue", "v = red", "v is missing")
    np.testing.assert_array_equal(features(data, "v")[1], [0, 0, 1])


def test_missing_values_of_parquet_are_found(tmp_path):
    frame = FRAME.assign(
        colour=FRAME["colour"].where(np.arange(N) % 4 > 0),
        tall=FRAME["tall"].astype("boolean").where(np.arange(N) % 4 > 0),
        count=FRAME["count"].astype("Int64").where(np.arange(N) % 4 > 0),
        day=pd.Series(pd.date_range("2020-01-01", periods=N)).where(np.arange(N) % 4 > 0),
    )
    data = load(write(tmp_path, frame, "parquet"))
    assert [one.kind for one in data.inputs.columns] == ["number", "category", "boolean", "number", "date"]
    for name in ("colour", "tall", "count", "day"):
        np.testing.assert_array_equal(features(data, name)[:, -1], np.arange(N) % 4 == 0)


def test_preprocessing_is_fitted_on_the_training_split_alone(tmp_path):
    frame = FRAME.assign(size=np.where(np.arange(N) < 50, FRAME["size"], np.nan), when=range(N))
    data = load(write(tmp_path, frame), time_order="when")
    assert len(data.test) == 12
    train = np.sort(frame["size"][: len(data.train)])
    assert data.inputs.columns[0].median == pytest.approx(train[(len(train) - 1) // 2])
    np.testing.assert_allclose(data.mean[0], train.mean(), rtol=1e-5)
    assert any("'size' is missing in 10 rows" in note for note in data.notes)


@pytest.mark.parametrize(
    ("values", "reason"),
    [
        (["same"] * N, "all its values are 'same'"),
        ([7] * N, "all its values are '7'"),
        ([""] * N, "it has no values"),
        ([f"n{row}" for row in range(N)], "all its values are different, as names and ids are"),
        (range(N), "it counts the rows from 0"),
        (range(1, N + 1), "it counts the rows from 1"),
    ],
)
def test_columns_that_tell_nothing_are_dropped_and_said(tmp_path, values, reason):
    data = column(tmp_path, values)
    assert [one.name for one in data.inputs.columns] == ["size"]
    assert next(one.reason for one in data.inputs.ignored if one.name == "v") == reason


def test_ids_are_recognised_by_name_and_can_be_kept(tmp_path):
    frame = FRAME.assign(patient_id=np.random.default_rng(0).permutation(N) + 1000, age=np.arange(20, 20 + N))
    names = [one.name for one in load(write(tmp_path, frame)).inputs.columns]
    assert "age" in names
    assert "patient_id" not in names
    kept = load(write(tmp_path, frame), kinds={"patient_id": "number"})
    assert "patient_id" in [one.name for one in kept.inputs.columns]


def test_a_lone_column_that_counts_the_rows_is_kept(tmp_path):
    data = load(text(tmp_path, "a,target\n" + "".join(f"{row},{1.7e9 + row}\n" for row in range(N))))
    assert [one.name for one in data.inputs.columns] == ["a"]
    assert len(np.unique(data.train.y)) == len(data.train)
    assert 15 < data.target_std[0] < 20


def test_an_offset_is_taken_off_before_float32(tmp_path):
    data = column(tmp_path, [f"17000000{row:02}" for row in range(N)])
    np.testing.assert_array_equal(np.diff(features(data, "v")[:, 0]), 1)


@pytest.mark.parametrize(
    ("content", "names", "note"),
    [
        ("a;b;label\n" + "1,5;x;u\n2,5;y;v\n3,25;x;u\n" * 20, ("a", "b = x", "b = y"), "separated by semicolons"),
        ("sep=;\na;b;label\n" + "1;x;u\n2;y;v\n" * 20, ("a", "b = x", "b = y"), "separated by semicolons"),
        ("a|b|label\n" + "1.5|x|u\n2.5|y|v\n" * 20, ("a", "b = x", "b = y"), "separated by bars"),
        ('a,"b, c",label\n' + '1.5,"x, y",u\n2.5,z,v\n' * 20, ("a", "b, c = x, y", "b, c = z"), None),
        ("\ufeffa,label\n" + "1.5,u\n2.5,v\n" * 20, ("a",), None),
        ("a,label,\n" + "1.5,u,\n2.5,v,\n" * 20, ("a",), "no name and no values"),
        (",a,label\n" + "".join(f"r{i},{i % 7}.5,{'uv'[i % 2]}\n" for i in range(40)), ("a",), "all differ: dropped"),
        (",a,label\n" + "".join(f"{i},{i % 7}.5,{'uv'[i % 2]}\n" for i in range(40)), ("a",), "counts the rows"),
        ('a,b,label\n' + '1.5,"line\none",u\n2.5,two,v\n' * 20, ("a", "b = line\none", "b = two"), None),
    ],
)  # fmt: skip
def test_text_files_as_programs_write_them(tmp_path, content, names, note):
    data = load(text(tmp_path, content), target="label")
    assert data.inputs.features == names
    assert note is None or any(note in said for said in data.notes)


@pytest.mark.parametrize(("encoding", "said"), [("utf-16", False), ("cp1252", True), ("utf-8", False)])
def test_other_encodings_are_read_and_said(tmp_path, encoding, said):
    data = load(text(tmp_path, "größe,label\n" + "1.5,ja\n2.5,nö\n" * 20, encoding=encoding))
    assert data.inputs.features == ("größe",)
    assert data.classes == ("ja", "nö")
    assert any("not UTF-8 (line 1)" in note for note in data.notes) == said


def test_non_ascii_file_names(tmp_path):
    path = text(tmp_path, "a,label\n" + "1.5,u\n2.5,v\n" * 20, name="dätä.csv")
    assert len(load(path).test) == 8


@pytest.mark.parametrize(
    ("options", "features_left"),
    [
        ({"drop": ("colour", "count")}, ("size", "tall")),
        (
            {"kinds": {"count": "category"}, "drop": ("colour",)},
            ("size", "tall", *(f"count = {i}" for i in sorted(map(str, range(13))))),
        ),
    ],
)  # fmt: skip
def test_columns_can_be_left_out_and_read_otherwise(tmp_path, options, features_left):
    assert load(write(tmp_path, FRAME), **options).inputs.features == features_left


def test_groups_stay_together(tmp_path):
    person = np.repeat(np.arange(12), 5)
    frame = FRAME.assign(person=[f"p{one}" for one in person], count=person + 0.25)
    for seed in range(5):
        data = load(write(tmp_path, frame), split_by="person", seed=seed)
        assert "person" not in [one.name for one in data.inputs.columns]
        place = list(data.inputs.features).index("count")
        held = [set(split.x[:, place]) for split in (data.train, data.reg, data.test)]
        assert all(held)
        assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]
        assert len(data.train) + len(data.reg) + len(data.test) == N
        assert 5 <= len(data.test) <= 20


def test_time_order_puts_the_last_rows_into_test(tmp_path):
    when = np.random.default_rng(0).permutation(N) // 4 * 4
    frame = FRAME.assign(when=[str(np.datetime64("2024-01-01") + int(day)) for day in when], count=when + 0.25)
    data = load(write(tmp_path, frame), time_order="when", limit=30)
    assert "when" not in [one.name for one in data.inputs.columns]
    place = list(data.inputs.features).index("count")
    train, reg, test = (split.x[:, place] for split in (data.train, data.reg, data.test))
    assert train.max() < reg.min() <= reg.max() < test.min()
    assert len(train) + len(reg) == 30


def test_few_rows_a_value_are_a_quantity(tmp_path):
    data = load(text(tmp_path, "a,target\n" + "".join(f"{i % 7}.5,{i // 2}\n" for i in range(34))))
    assert data.task == "regression"
    assert any("target 'target' holds 17 different whole numbers, taken as a quantity" in note for note in data.notes)


def test_rows_are_numbered_as_in_the_file(tmp_path):
    frame = FRAME.assign(when=range(N), colour=["odd" if i == 57 else "red" for i in range(N)], tall=True)
    notes = load(write(tmp_path, frame), time_order="when", drop=("count",)).notes
    assert any("'colour' is 'odd' in row 58, which training never saw" in note for note in notes)


def test_a_class_that_a_split_lacks_is_said(tmp_path):
    rows = "".join(f"{row},{'rare' if row < 2 else row % 2}\n" for row in range(400))
    data = load(text(tmp_path, f"a,label\n{rows}"))
    assert any("class 'rare'" in note and "not in reg and not in test" in note for note in data.notes)


def missing(frame, name, count):
    return frame.assign(**{name: frame[name].where(np.arange(N) >= count)})


@pytest.mark.parametrize(
    ("frame", "options", "message"),
    [
        (FRAME, {"target": "labl"}, "no column 'labl'; did you mean 'label'?; the columns are: size, colour"),
        (FRAME, {"drop": ("colr",)}, "--drop names 'colr'; did you mean 'colour'?"),
        (FRAME, {"kinds": {"siz": "number"}}, "--kind names 'siz'; did you mean 'size'?"),
        (FRAME, {"split_by": "label"}, "--split-by names 'label', which is the target"),
        (FRAME, {"time_order": "colour"}, "column 'colour' of --time-order holds 'red'; it needs numbers or dates"),
        (FRAME.assign(one="p"), {"split_by": "one"}, "'one' has 1 value in 60 examples"),
        (missing(FRAME, "colour", 2), {"split_by": "colour"}, "column 'colour' of --split-by is missing in data row 1"),
        (FRAME, {"kinds": {"colour": "number"}}, "column 'colour' holds numbers but for 'red' in data row 1"),
        (FRAME, {"kinds": {"colour": "boolean"}}, "holds 'red' in data row 1; a boolean is true or false"),
        (FRAME, {"kinds": {"colour": "date"}}, "column 'colour' holds 'red'"),
        (FRAME, {"image_size": 8}, "image_size=8 is for image folders only"),
        (FRAME, {"keys": {"x": "a"}}, "is for arrays (.npz) only"),
        (FRAME.drop(columns="label"), {}, "pass --target with one of: size, colour, tall, count"),
        (FRAME.assign(y=0), {}, "which column is the target?"),
        (missing(FRAME, "label", 1), {}, "the target 'label' is missing in data row 1 (1 rows in all)"),
        (FRAME.assign(size=[1.0, np.inf] + [0.0] * 58), {}, "column 'size' is inf in data row 2 (1 such"),
        (FRAME.assign(size=[1e300] * 59 + [0]), {}, "column 'size' is 1e+300 in data row 1"),
        (FRAME.assign(label=[-np.inf] + [0.5] * 59), {}, "column 'label' is -inf in data row 1"),
        (FRAME.assign(size=["?" if i == 5 else i / 3 for i in range(N)]), {}, "numbers but for '?' in data row 6"),
        (FRAME.assign(size=[f"{i} kg" if i else "7 lb" for i in range(N)]), {}, "numbers but for '7 lb' in data row 1"),
        (FRAME.assign(size=["1,234", "5,678"] * 30), {}, "holds '1,234', one number with a decimal"),
        (FRAME.assign(size=["01/02/2024", "03/04/2024"] * 30), {}, "is one date as %d/%m/%Y and another as %m/%d/%Y"),
        (FRAME.assign(size=[f"word {row % 40}" for row in range(N)]), {}, "text is not read: leave it out"),
        (FRAME.assign(size=["3rd of May", "May the 4th"] * 30), {}, "looks like a date in a form that is not known"),
        (FRAME[["label"]], {}, "'label' is the only column"),
        (FRAME[["label"]].assign(a=1), {}, "no column is left as a feature ('a': all its values are '1')"),
        (FRAME.iloc[:0], {}, "the table has 0 rows"),
        (FRAME.assign(label="yes"), {}, "'yes' is the only class"),
        (FRAME.assign(label=["yes"] * 59 + ["no"]), {}, "class 'no' has 1 training example"),
        (FRAME.rename(columns={"tall": ""}), {}, "column 4 has no name (it begins with 'True')"),
    ],
)  # fmt: skip
def test_what_is_refused(tmp_path, frame, options, message):
    with pytest.raises(UserError) as error:
        load(write(tmp_path, frame), **options)
    assert message in str(error.value)
    assert "table.csv" in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [
        ("id,size,label\n1,2,a,b\n2,3,b,c\n", "data row 1 has 4 fields, and there are 3 names ('id', 'size', 'label')"),
        ("a,b,label\n1,2,u\n3,v\n", "data row 2 has 2 fields, and there are 3 names"),
        ("a,label,label\n1,u,u\n", "column 'label' occurs twice"),
        ("5.1,3.5,setosa\n4.9,3.0,setosa\n", "the first line holds numbers (5.1, 3.5)"),
        ("1,2,3\n1,2,3\n", "the first line holds numbers (1, 2, 3)"),
        ("a b label\n1 2 u\n3 4 v\n", "fields seem to be separated by spaces, 3 in each line"),
        ("x" * 200_000 + "\n1\n", "cannot be read as a table (field larger than field limit"),
        ("", "is empty"),
    ],
)
def test_text_that_is_no_table_is_refused(tmp_path, content, message):
    with pytest.raises(UserError) as error:
        load(text(tmp_path, content), target="label")
    assert message in str(error.value)


def test_columns_of_other_types_are_refused(tmp_path):
    frame = FRAME.assign(parts=[[1, 2]] * N)
    with pytest.raises(UserError, match="column 'parts' holds .* which is no number, text, boolean or date"):
        load(write(tmp_path, frame, "parquet"))


def test_too_many_categories_are_refused(tmp_path):
    num = 2 * (MAX_CATEGORIES + 1)
    frame = pd.DataFrame({"name": [f"n{i % (num // 2)}" for i in range(num)] * 2, "label": ["a", "b"] * num})
    frame["other"] = range(3, len(frame) + 3)
    unlike = frame.assign(name=[f"n{i}" for i in range(len(frame))])
    assert [one.name for one in load(write(tmp_path, unlike)).inputs.ignored] == ["name", "label"]
    with pytest.raises(UserError, match=r"column 'name' has 1,001 different values, more than the 1,000"):
        load(write(tmp_path, frame))


@pytest.mark.parametrize("kind", ["csv", "parquet"])
@pytest.mark.parametrize("content", [b"", b"\xff\xfea", b"a\0b"])
def test_unreadable_files_are_refused(tmp_path, kind, content):
    path = tmp_path / f"table.{kind}"
    path.write_bytes(content)
    with pytest.raises(UserError, match=rf"table\.{kind}: (cannot be read as a |.*target|is empty)"):
        load(path)


# what a newcomer's files taught


@pytest.mark.parametrize(
    ("content", "options", "message"),
    [
        ("umsatz;y\n" + "900;u\n1.004;v\n3.487;u\n" * 20, {}, "holds '1.004', which may be a thousand and some"),
        ("a,price,y\n" + '"1,5",1.004,u\n"2,5",913,v\n' * 30, {}, "say that these are decimals: --kind price=number"),
        ("a;y\n" + "".join(f"{i % 7},5;{100 + i}.000\n" for i in range(60)), {}, "are decimals: --task regression"),
        ("a,y\n" + "1.5,u\n\"2,5\",v\n" * 30, {}, "column 'a' holds numbers but for '2,5' in data row 2"),
        ("a,y\n" + "2.5,u\n(1.5),v\n3.5,u\n" * 20, {}, "column 'a' holds numbers but for '(1.5)' in data row 2"),
        ("a,y\n" + "".join(f"{i // 60}:{i % 60:02},{'uv'[i % 2]}\n" for i in range(90)), {}, "numbers but for '0:00'"),
        ("a,y\n" + "2024-01-01T09:00:00Z,u\n2024-01-02T09:00:00,v\n" * 30, {}, "times with a zone and without"),
        ("a,b,y\n" + "1,yes,u\n2,maybe,v\n3,no,u\n" * 20, {"kinds": {"b": "boolean"}}, "yes or no, 1 or 0"),
        ("a,b,y\n" + "1,,u\n2,,v\n" * 30, {"kinds": {"b": "number"}}, "column 'b' has no values"),
        ('"a" "b" "y"\n"1" 5 6 u\n"2" 7 8 v\n', {}, "fields seem to be separated by spaces, 4 in each line"),
    ],
)  # fmt: skip
def test_what_could_be_meant_otherwise_is_refused(tmp_path, content, options, message):
    with pytest.raises(UserError) as error:
        load(text(tmp_path, content), **{"target": "y"} | options)
    assert message in str(error.value)


def test_decimals_with_points_stay_decimals(tmp_path):
    data = column(tmp_path, [f"{1 + row}.250" for row in range(N)])
    np.testing.assert_allclose(features(data, "v")[:, 0], np.arange(N) + 1.25)
    grouped = text(tmp_path, "a;y\n" + "900;u\n1.004;v\n3.487;u\n" * 20)
    assert load(grouped, target="y", kinds={"a": "number"}).train.x.max() == 900


@pytest.mark.parametrize(
    ("name", "values", "hint"),
    [
        ("v", [-999 if row % 9 == 0 else row / 3 for row in range(N)], "holds -999 in 7 rows, far from all else"),
        ("v", [20240101 + row % 28 for row in range(N)], "--kind v=date reads them so"),
        ("user_id", [row // 4 + 100 for row in range(N)], "--split-by user_id keeps its rows together"),
        ("v", [row - 30 for row in range(N)], None),
        ("age", [row // 4 + 100 for row in range(N)], None),
    ],
)
def test_numbers_that_may_be_something_else_are_said(tmp_path, name, values, hint):
    notes = load(write(tmp_path, FRAME.assign(**{name: values}))).notes
    assert [note for note in notes if f"'{name}'" in note and (hint or "") in note] != [] if hint else not notes


def test_classes_that_differ_in_case_alone_are_said(tmp_path):
    notes = load(write(tmp_path, FRAME.assign(label=["Yes", "yes", "no"] * 20))).notes
    assert any("classes that differ in case alone: 'Yes', 'yes'" in note for note in notes)


def test_numbers_beyond_what_is_exact_are_ids(tmp_path):
    for kind, values in (("csv", [2**63 + row for row in range(N)]), ("parquet", [2**60 + row for row in range(N)])):
        data = load(write(tmp_path, FRAME.assign(hash=values), kind))
        assert "hash" not in [one.name for one in data.inputs.columns]
        reason = next(one.reason for one in data.inputs.ignored if one.name == "hash")
        assert reason == "all its values are different, as names and ids are"


def test_parquet_as_programs_write_it(tmp_path):
    import datetime
    from decimal import Decimal

    frame = FRAME.assign(
        price=[Decimal(row) / 100 for row in range(N)],
        day=[datetime.date(2024, 1, 1) + datetime.timedelta(row) for row in range(N)],
        when=range(100, 100 + N),
    ).set_index("when")
    data = load(write(tmp_path, frame, "parquet"), time_order="when")
    kinds = {one.name: one.kind for one in data.inputs.columns}
    assert (kinds["price"], kinds["day"]) == ("number", "date")
    assert "when" not in kinds
    import json

    json.dumps(data.example.to_dict("records"), default=str)
    assert data.example["price"].dtype == "float64"


def test_a_time_of_the_day_that_never_changes_is_no_circle(tmp_path):
    days = [f"{np.datetime64('2024-01-01') + row * 3}T09:00:00" for row in range(N)]
    assert "v in the day, sine" not in column(tmp_path, days).inputs.features


# what a review found


@pytest.mark.parametrize("values", [["0150", "5003", "7010"], ["0830", "1545", "1200"], ["now", "today", "then"]])
def test_codes_and_words_are_no_dates(tmp_path, values):
    data = column(tmp_path, values * 20)
    assert data.inputs.columns[0].kind == "category"


def test_dates_as_digits_are_read_where_that_is_asked_for(tmp_path):
    data = column(tmp_path, [20240101 + row % 28 for row in range(N)], kinds={"v": "date"})
    assert data.inputs.columns[0].kind == "date"
    assert features(data, "v")[:, 0].max() == 27


@pytest.mark.parametrize(
    ("values", "options", "message"),
    [
        (["1,234", "2,500", "3,750"], {}, "the target 'label' holds '1,234', one number with a decimal"),
        ([f"{100 + i},3" if i else "unknown" for i in range(30)], {}, "holds numbers but for 'unknown' in data row 1"),
    ],
)
def test_a_target_that_could_be_meant_otherwise_is_refused(tmp_path, values, options, message):
    frame = FRAME.assign(label=list(values) * (N // len(values)))
    with pytest.raises(UserError) as error:
        load(write(tmp_path, frame), target="label", **options)
    assert message in str(error.value)
    assert "--drop" not in str(error.value)


def test_a_target_of_bytes_or_lists_is_refused(tmp_path):
    for odd in ([b"u", b"v"] * 30, [[1, 2]] * N):
        with pytest.raises(UserError, match="which is no number, text or boolean"):
            load(write(tmp_path, FRAME.assign(label=odd), "parquet"), target="label")


@pytest.mark.parametrize("share", [0.1, 0.3, 0.4, 0.7])
def test_groups_come_near_the_share_that_is_asked_for(tmp_path, share):
    frame = pd.concat([FRAME] * 10).assign(person=np.arange(10 * N) // 2)
    data = load(write(tmp_path, frame), split_by="person", test_share=share)
    assert len(data.test) == pytest.approx(share * 10 * N, rel=0.1)
