"""Columns and arrays by themselves: to JSON and back, what a row may hold, and what is refused."""

from __future__ import annotations

import json
from typing import Any

import numpy as np
import pandas as pd
import pytest

from crossreg.core.errors import UserError
from crossreg.inputs import Array, Boolean, Category, Date, Ignored, Number, Table, from_json, to_json
from crossreg.inputs.text import ISO, NumberFormat, date_formats, number_formats, text_of

FRAME = pd.DataFrame(
    {
        "age": ["31", "", "55 "],
        "weight": ["70,5 kg", "80 kg", ""],
        "smoker": ["true", "False", ""],
        "city": ["Köln", "Bonn", ""],
        "since": ["31.12.2023 10:00", "01.01.2024 22:30", ""],
    }
)
TABLE = Table(
    (
        Number.fit("age", FRAME["age"], NumberFormat()),
        Number.fit("weight", FRAME["weight"], NumberFormat(",", "", "kg")),
        Boolean.fit("smoker", FRAME["smoker"]),
        Category.fit("city", FRAME["city"]),
        Date.fit("since", FRAME["since"], "%d.%m.%Y %H:%M"),
    ),
    (Ignored("id", "it counts the rows from 0"), Ignored("label", "the target")),
    "label",
)


def encode(rows: Any, **options: Any) -> tuple[np.ndarray, list[str]]:
    notes: list[str] = []
    return TABLE.encode(rows, notes, **options), notes


@pytest.mark.parametrize(
    "inputs", [TABLE, Array(), Array("float64", "channels last", (0.0, 1.5e9)), Array("uint8", resize=True)]
)
def test_json_and_back(inputs: Any) -> None:
    assert from_json(json.loads(json.dumps(to_json(inputs)))) == inputs


def test_features_are_named() -> None:
    assert TABLE.features == (
        "age", "age is missing", "weight", "weight is missing", "smoker", "smoker is missing",
        "city = Bonn", "city = Köln", "city is missing",
        "since, days since 2023-12-31", "since in the day, sine", "since in the day, cosine", "since is missing",
    )  # fmt: skip


def test_text_and_json_say_the_same() -> None:
    text, _ = encode(FRAME)
    rows = [
        {"age": 31, "weight": 70.5, "smoker": True, "city": "Köln", "since": "2023-12-31T10:00"},
        {"age": None, "weight": 80, "smoker": False, "city": "Bonn", "since": "2024-01-01 22:30:00"},
        {"age": 55.0, "weight": None, "smoker": None, "city": None, "since": None},
    ]
    as_json, notes = encode(rows)
    np.testing.assert_allclose(as_json, text, atol=1e-6)
    assert notes == []
    assert text[1, :2].tolist() == [31, 1]  # the lower median of 31 and 55


def test_order_of_fields_and_columns_that_were_left_out_do_not_matter() -> None:
    row = {"since": None, "id": 7, "label": "x", "city": "Bonn", "smoker": 1, "weight": "1,5 kg", "age": "3"}
    assert encode([row], surplus=False)[0][0, 2] == 1.5


def test_what_training_never_saw_is_said() -> None:
    whole = Table(
        (Number.fit("age", pd.Series(["1", "2", "4"]), NumberFormat()), Category.fit("city", pd.Series(["a", "b"] * 2)))
    )
    notes: list[str] = []
    x = whole.encode([{"age": None, "city": "c"}, {"age": 1, "city": "a"}], notes)
    assert x.tolist() == [[2, 0, 0], [1, 1, 0]]
    assert notes == [
        "'age' is missing in row 1, which it never was in training: taken as its median there",
        "'city' is 'c' in row 1, which training never saw: taken as none of its values; expected one of 'a', 'b'",
    ]


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"age": "old"}, "column 'age' holds 'old' in row 1; expected a finite number, or nothing"),
        ({"age": "1,5"}, "column 'age' holds '1,5' in row 1"),
        ({"age": True}, "column 'age' holds 'True' in row 1"),
        ({"age": "inf"}, "column 'age' holds 'inf' in row 1"),
        ({"age": 1e300}, "column 'age' holds '1e+300' in row 1"),
        ({"weight": "70 lb"}, "column 'weight' holds '70 lb' in row 1; expected a finite number in kg"),
        ({"smoker": "perhaps"}, "expected true or false"),
        (
            {"since": "yesterday"},
            "column 'since' holds 'yesterday' in row 1; expected a date in the form %d.%m.%Y %H:%M",
        ),
        ({"siity": 1}, "unknown column 'siity'; did you mean 'city'?"),
    ],
)
def test_values_that_a_column_cannot_hold_are_refused(change: dict[str, Any], message: str) -> None:
    row = {"age": 31, "weight": 70.5, "smoker": True, "city": "Köln", "since": "2023-12-31"} | change
    with pytest.raises(UserError) as error:
        encode([row], surplus=False)
    assert message in str(error.value)


def test_missing_columns_are_refused_with_the_nearest() -> None:
    with pytest.raises(UserError, match="column 'city' is missing; did you mean 'City'"):
        encode(FRAME.rename(columns={"city": "City"}).assign(other=1))
    with pytest.raises(UserError, match="row 2 has no 'age'"):
        encode([{"age": 1, "weight": 1, "smoker": True, "city": "a", "since": None}, {"weight": 1}])
    with pytest.raises(UserError, match="occurs twice"):
        encode(pd.concat([FRAME, FRAME[["age"]]], axis=1))


def test_arrays_of_numbers_are_rows_where_all_columns_are_numbers() -> None:
    numbers = Table((Number("a", True, 5.0), Boolean("b", False)))
    assert numbers.encode(numbers.from_array(np.array([[1, 1], [np.nan, 0]]))).tolist() == [[1, 0, 1], [5, 1, 0]]
    with pytest.raises(UserError, match=r"inputs have shape \(1, 3\); expected \(N, 2\), one for each of a, b"):
        numbers.from_array(np.ones((1, 3)))
    with pytest.raises(UserError, match=r"cannot hold column 'city' \(category\)"):
        TABLE.from_array(np.ones((1, 5)))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"columns": []}, "names 0 columns"),
        ({"columns": [{"kind": "text", "name": "a"}]}, "kind 'text'; allowed are number, boolean, category, date"),
        ({"columns": [to_json(TABLE)["columns"][0] | {"median": "x"}]}, "median is 'x', not of type float"),
        ({"columns": [to_json(TABLE)["columns"][0] | {"median": True}]}, "median is True, not of type float"),
        ({"columns": [to_json(TABLE)["columns"][0] | {"more": 1}]}, "unknown field 'more'"),
        ({"columns": [to_json(TABLE)["columns"][3] | {"values": "ab"}]}, "values is no list"),
        ({"columns": to_json(TABLE)["columns"][:1] * 2}, "names 2 columns, 1 of them different"),
        ({"kind": "picture"}, "neither a table with columns nor an array"),
        ({"kind": "array"}, "dtype is missing"),
        ({"target": None}, "target is None, not of type text"),
    ],
)
def test_a_description_that_is_none_is_refused(change: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError) as error:
        from_json(to_json(TABLE) | change)
    assert message in str(error.value)


def test_arrays_are_taken_as_stored_and_as_the_model_has_them() -> None:
    x = np.arange(2 * 4 * 5 * 3).reshape(2, 4, 5, 3).astype(np.uint8)
    first = np.moveaxis(x, -1, 1)
    for given in (x, first):
        np.testing.assert_array_equal(Array("uint8", "channels last").encode(given, (3, 4, 5)), first)
    assert Array("uint8", "no channel axis").encode(x[:, :, :, 0], (1, 4, 5)).shape == (2, 1, 4, 5)
    with pytest.raises(UserError, match=r"inputs have shape \(2, 4, 5, 3\); this model takes \(N, 3, 4, 5\)"):
        Array("uint8").encode(x, (3, 4, 5))
    with pytest.raises(UserError, match="inputs have dtype <U1"):
        Array().encode(np.array([["a"]]), (1,))


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["1", "2.5", "-3e4"], [NumberFormat()]),
        (["1,5", "2"], [NumberFormat(",")]),
        (["1,234", "5,678"], [NumberFormat(".", ","), NumberFormat(",")]),
        (["1,234", "5,678.5"], [NumberFormat(".", ",")]),
        (["1,234,567"], [NumberFormat(".", ",")]),
        (["1.234.567,5"], [NumberFormat(",", ".")]),
        (["1'234.5"], [NumberFormat(".", "'")]),
        (["5 kg", "6kg"], [NumberFormat(".", "", "kg")]),
        (["€5", "€6"], [NumberFormat(".", "", "€")]),
        (["A1", "A2"], []),
        (["5 kg", "6"], []),
        (["007"], []),
        (["0x10"], []),
        (["1_000"], []),
        ([], []),
    ],
)
def test_formats_of_numbers(values: list[str], formats: list[NumberFormat]) -> None:
    assert number_formats(pd.Series(values, dtype=object)) == formats


@pytest.mark.parametrize(
    ("values", "formats"),
    [
        (["2024-01-31", "2024-02-01T10:00:00Z"], [ISO]),
        (["01/02/2024"], ["%d/%m/%Y", "%m/%d/%Y"]),
        (["01/02/2024", "13/02/2024"], ["%d/%m/%Y"]),
        (["01/01/2024"], ["%d/%m/%Y"]),
        (["1.2.2024"], ["%d.%m.%Y"]),
        (["2024-01-31", "soon"], []),
        (["word"], []),
    ],
)
def test_formats_of_dates(values: list[str], formats: list[str]) -> None:
    assert date_formats(pd.Series(values, dtype=object)) == formats


def test_a_value_has_one_text_whatever_holds_it() -> None:
    for values in (
        ["1", "2", None],
        [1, 2, None],
        [1.0, 2.0, np.nan],
        pd.array([1, 2, None], "Int64"),
        [" 1 ", "2", "NA"],
    ):
        found = text_of(pd.Series(values))
        assert found.tolist()[:2] == ["1", "2"]
        assert found.isna().tolist() == [False, False, True]


def test_categories_are_known_however_programs_write_them() -> None:
    codes = Category.fit("zip", pd.Series(["01", "10", "27"]))
    for values in (["01", "10"], [1, 10], [1.0, 10.0], ["1.0", "10.0"], ["1", "10"]):
        notes: list[str] = []
        np.testing.assert_array_equal(codes.encode(pd.Series(values), notes), [[1, 0, 0], [0, 1, 0]])
        assert notes == []
    codes.encode(pd.Series(["01", "99", "98", "99"]), notes)
    assert notes == [
        "'zip' has values that training never saw in 3 rows (of 2 different kinds, such as '99' in row 2): taken as "
        "none of its values; expected one of '01', '10', '27'"
    ]


def test_a_decimal_comma_is_asked_for() -> None:
    with pytest.raises(UserError, match="holds '1.5' in row 1; expected a finite number with ',' before decimals"):
        Number("a", False, 0.0, decimal=",").encode(pd.Series(["1.5"]), [])


def test_words_and_years_are_no_dates_at_prediction() -> None:
    day = Date.fit("d", pd.Series(["2024-01-01", "2024-02-01"]), ISO)
    for wrong in ("now", "today", "2020", "20240131"):
        with pytest.raises(UserError, match=f"holds '{wrong}' in row 1; expected an ISO date"):
            day.encode(pd.Series([wrong]), [])


def test_a_whole_number_of_hundreds_of_digits_is_refused() -> None:
    with pytest.raises(UserError, match="expected a finite number"):
        Number("a", False, 0.0).encode(pd.Series([10**400], dtype=object), [])


@pytest.mark.parametrize(
    ("place", "change", "message"),
    [
        (4, {"first": "soon"}, "first is 'soon', which is no date"),
        (4, {"form": "%Q"}, "form is '%Q'"),
        (4, {"cycles": ["moon"]}, "cycle 'moon' is none of year, week, day"),
        (3, {"values": ["x", "x"]}, "a value occurs twice"),
        (0, {"decimal": ""}, "decimal is ''"),
    ],
)
def test_a_column_that_means_nothing_is_refused(place: int, change: dict[str, Any], message: str) -> None:
    content = to_json(TABLE)
    content["columns"][place] |= change
    with pytest.raises(UserError) as error:
        from_json(content)
    assert message in str(error.value)
