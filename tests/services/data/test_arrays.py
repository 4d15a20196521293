"""NumPy files: shapes, dtypes, and what is refused."""

from __future__ import annotations

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data
from crossreg.services.data.arrays import load_arrays

RNG = np.random.default_rng(0)
X = RNG.normal(size=(40, 3))
Y = np.arange(40) % 2


def test_own_test_split_is_kept_in_order(npz):
    data = load_data(DataConfig(name=npz(x=X, y=Y, x_test=X[:7] + 100, y_test=Y[:7])))
    np.testing.assert_array_equal(data.test.x, (X[:7] + 100).astype(np.float32))
    np.testing.assert_array_equal(data.test.y, Y[:7])
    assert len(data.train) + len(data.reg) == 40


def test_npy_files_side_by_side_are_like_an_npz(tmp_path, npz):
    for name, array in {"x": X, "y": Y, "x_test": X[:9], "y_test": Y[:9]}.items():
        np.save(tmp_path / f"{name}.npy", array)
    from_npy = load_data(DataConfig(name=str(tmp_path / "x.npy")))
    from_npz = load_data(DataConfig(name=npz(x=X, y=Y, x_test=X[:9], y_test=Y[:9])))
    assert from_npy.fingerprint == from_npz.fingerprint


@pytest.mark.parametrize(
    ("shape", "dtype", "expected"),
    [
        ((40, 5, 6), np.uint8, ((1, 5, 6), np.uint8)),
        ((40, 5, 6, 3), np.uint8, ((3, 5, 6), np.uint8)),
        ((40, 3, 5, 6), np.uint8, ((3, 5, 6), np.uint8)),
        ((40, 3, 5, 3), np.uint8, ((3, 5, 3), np.uint8)),
        ((40, 4), np.uint8, ((4,), np.float32)),
        ((40,), np.float64, ((1,), np.float32)),
        ((40, 5, 6, 3), np.float32, ((3, 5, 6), np.float32)),
        ((40, 3, 5, 6), np.int16, ((3, 5, 6), np.float32)),
        ((40, 5, 3), np.float64, ((3, 5), np.float32)),
        ((40, 3, 5), np.int16, ((3, 5), np.float32)),
        ((40, 2), np.int64, ((2,), np.int64)),
        ((40, 7), np.int32, ((7,), np.int64)),
        ((40, 2), bool, ((2,), np.float32)),
    ],
)
def test_shapes_and_dtypes(tmp_path, npz, shape, dtype, expected):
    raw = load_arrays_from(npz(x=np.ones(shape, dtype), y=Y))
    assert (raw.x.shape[1:], raw.x.dtype) == expected


def load_arrays_from(path):
    from pathlib import Path

    return load_arrays(Path(path), DataConfig(name=path))


def test_channels_last_images_keep_their_pixels(npz):
    x = RNG.integers(0, 256, (40, 5, 6, 3), dtype=np.uint8)
    np.testing.assert_array_equal(load_arrays_from(npz(x=x, y=Y)).x, np.moveaxis(x, 3, 1))


@pytest.mark.parametrize(
    ("y", "classes", "codes"),
    [
        (np.array([5, 10, 2, 5] * 10), ("2", "5", "10"), [1, 2, 0, 1]),
        (np.array(["b", "a", "c", "b"] * 10), ("a", "b", "c"), [1, 0, 2, 1]),
        (np.array([True, False, True, True] * 10), ("False", "True"), [1, 0, 1, 1]),
        (np.array([[1], [0], [1], [0]] * 10), ("0", "1"), [1, 0, 1, 0]),
        (np.array([b"b", "ä".encode(), b"b", b"b"] * 10), ("b", "ä"), [0, 1, 0, 0]),
    ],
)
def test_labels_become_indices(npz, y, classes, codes):
    raw = load_arrays_from(npz(x=X, y=y))
    assert raw.classes == classes
    assert raw.y[:4].tolist() == codes
    assert raw.y.dtype == np.int64


@pytest.mark.parametrize("shape", [(40,), (40, 1), (40, 2)])
def test_float_targets_are_regression(npz, shape):
    raw = load_arrays_from(npz(x=X, y=RNG.normal(size=shape)))
    assert raw.classes == ()
    assert (raw.y.dtype, raw.y.shape) == (np.float64, (40, shape[1] if len(shape) > 1 else 1))


def with_value(array, index, value):
    array = array.astype(float)
    array[index] = value
    return array


@pytest.mark.parametrize(
    ("arrays", "message"),
    [
        (
            {"x": X, "labels": Y},
            "no array 'y'; needed are x and y, optional x_test and y_test; found labels, x",
        ),
        ({"a": X}, "no array 'x'"),
        ({"x": X, "y": Y, "x_test": X}, "x_test and y_test come together or not at all; found x, x_test, y"),
        ({"x": X, "y": Y[:39]}, "x has 40 rows and y has 39"),
        ({"x": X, "y": Y, "x_test": X[:5], "y_test": Y[:4]}, "x_test has 5 rows and y_test has 4"),
        (
            {"x": X, "y": Y, "x_test": X[:5, :2], "y_test": Y[:5]},
            "x_test is float32 (2,), but of x it is float32 (3,)",
        ),
        ({"x": X, "y": Y, "x_test": X[:5], "y_test": Y[:5] + 1}, "class '2' is in the test split"),
        ({"x": X, "y": Y, "x_test": X[:5], "y_test": X[:5, 0]}, "y holds classes in one part and fractions in another"),
        ({"x": X, "y": X[:, :2], "x_test": X[:5], "y_test": X[:5]}, "y_test has shape (5, 3), y has (40, 2)"),
        ({"x": X[:0], "y": Y[:0]}, "x is empty, shape (0, 3)"),
        ({"x": X[:, :0], "y": Y}, "x is empty, shape (40, 0)"),
        ({"x": with_value(X, (7, 2), np.nan), "y": Y}, "x[7, 2] is nan (1 such"),
        ({"x": with_value(X, (7, 2), 1e300), "y": Y}, "x[7, 2] is inf"),
        ({"x": X, "y": with_value(Y, 5, -np.inf)}, "y[5] is -inf"),
        ({"x": X, "y": Y, "x_test": with_value(X, (1, 1), np.nan), "y_test": Y}, "x_test[1, 1] is nan"),
        ({"x": X, "y": np.zeros(40, int)}, "'0' is the only class"),
        ({"x": X, "y": np.eye(2, dtype=int)[Y]}, "y has shape (40, 2); classes are [N]"),
        ({"x": X, "y": X[:, :, None]}, "y has shape (40, 3, 1)"),
        ({"x": X.astype(complex), "y": Y}, "x has dtype complex128"),
        ({"x": X.astype(str), "y": Y}, "x has dtype <U"),
        ({"x": X, "y": Y.astype(complex)}, "y has dtype complex128"),
        ({"x": np.array(1.0), "y": Y}, "x is a single number"),
        ({"x": X, "y": np.array(["a", None] * 20, dtype=object)}, "y: holds Python objects"),
    ],
)
def test_what_is_refused(npz, arrays, message):
    path = npz(**arrays)
    with pytest.raises(UserError) as error:
        load_data(DataConfig(name=path))
    assert message in str(error.value)
    assert "data.npz" in str(error.value)


@pytest.mark.parametrize("size", [0, 10, 300])
def test_a_truncated_file_is_refused(tmp_path, npz, size):
    path = tmp_path / "data.npz"
    npz(x=X, y=Y)
    path.write_bytes(path.read_bytes()[:size])
    with pytest.raises(UserError, match=r"data\.npz: (cannot be read|holds Python objects or is no NumPy file)"):
        load_data(DataConfig(name=str(path)))


def test_a_changed_byte_is_refused(tmp_path, npz):
    path = tmp_path / "data.npz"
    npz(x=X, y=Y)
    content = bytearray(path.read_bytes())
    content[400] ^= 1
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"data\.npz: x: cannot be read"):
        load_data(DataConfig(name=str(path)))


def test_npy_needs_its_neighbour_and_its_name(tmp_path):
    np.save(tmp_path / "x.npy", X)
    np.save(tmp_path / "images.npy", X)
    with pytest.raises(UserError, match=r"no array 'y'.*found x$"):
        load_data(DataConfig(name=str(tmp_path / "x.npy")))
    with pytest.raises(UserError, match=r"images\.npy: an array file must be named x\.npy"):
        load_data(DataConfig(name=str(tmp_path / "images.npy")))


def test_a_pickle_is_never_opened(tmp_path):
    ran = tmp_path / "ran"

    class Payload:
        def __reduce__(self):
            return (ran.mkdir, ())

    np.save(tmp_path / "x.npy", np.array([Payload()], dtype=object), allow_pickle=True)
    np.save(tmp_path / "y.npy", Y)
    with pytest.raises(UserError, match=r"x\.npy: holds Python objects"):
        load_data(DataConfig(name=str(tmp_path / "x.npy")))
    assert not ran.exists()


def load(path, **options):
    return load_data(DataConfig(name=path, **options))


def test_arrays_of_other_names(npz):
    named = load(npz(images=X, labels=Y, more=X), keys={"x": "images", "y": "labels"})
    assert named.fingerprint == load(npz(x=X, y=Y)).fingerprint
    assert "arrays not read: more" in named.notes


def test_whole_floats_are_classes_and_said_and_one_hot_is_refused(npz):
    path = npz(x=X, y=Y.astype(float))
    data = load(path)
    assert data.classes == ("0", "1")
    assert any("--task regression takes a quantity" in note for note in data.notes)
    assert load(path, task="regression").task == "regression"
    with pytest.raises(UserError, match=r"a single 1 in each row; classes are \[N\]"):
        load(npz(x=X, y=np.eye(2)[Y]))


def test_many_integers_are_classes_in_arrays(npz):
    assert len(load(npz(x=np.repeat(X, 10, axis=0), y=np.arange(400) % 30)).classes) == 30


def test_a_large_offset_is_taken_off_and_said(npz):
    x = X.copy()
    x[:, 1] = 1.7e9 + np.arange(40)
    data = load(npz(x=x, y=Y))
    assert len(np.unique(np.concatenate([data.train.x, data.reg.x, data.test.x])[:, 1])) == 40
    assert data.inputs.offset[0] == data.inputs.offset[2] == 0
    assert any("is taken off x[:, 1]" in note for note in data.notes)
    np.testing.assert_array_equal(
        data.inputs.encode(x[:, :][data.test.y * 0], (3,))[0], (x[0] - data.inputs.offset).astype(np.float32)
    )


def test_squares_of_floats_are_said_not_to_be_images(npz):
    data = load(npz(x=RNG.random((40, 12, 12)), y=Y))
    assert data.input_shape == (12, 12)
    assert any("store it as (40, 1, 12, 12)" in note for note in data.notes)


def test_several_whole_numbers_a_row_are_a_regression_where_that_is_asked_for(npz):
    path = npz(x=X, y=RNG.integers(0, 50, (40, 2)))
    assert load(path, task="regression").num_outputs == 2
    with pytest.raises(UserError, match="several in a row cannot be learned; --task regression takes numbers"):
        load(path)


def test_whole_numbers_that_overflow_are_refused(npz):
    with pytest.raises(UserError, match="whole numbers beyond 2"):
        load(npz(x=RNG.integers(0, 9, (40, 3)).astype("uint64") + np.uint64(2**63), y=Y))


@pytest.mark.parametrize("shape", [(40,), (40, 2, 3)])
def test_offsets_are_taken_off_arrays_of_other_shapes(npz, shape):
    x = 1.7e9 + np.arange(np.prod(shape), dtype=float).reshape(shape)
    data = load(npz(x=x, y=Y))
    for one in np.moveaxis(data.inputs.encode(x, data.input_shape), 1, 0):  # each has an offset of its own
        assert len(np.unique(one)) == one.size


def test_a_test_split_of_its_own_comes_last_in_time(npz):
    arrays = {"x": X, "y": Y, "t": np.arange(40) + 100, "x_test": X[:5], "y_test": Y[:5]}
    with pytest.raises(UserError, match="it must come last for --time-order"):
        load(npz(**arrays, t_test=np.arange(5)), time_order="t")
    assert len(load(npz(**arrays, t_test=np.arange(5) + 200), time_order="t").test) == 5


def test_raw_is_not_standardized(npz):
    data = load(npz(x=X * 100 + 7, y=Y), raw=True)
    assert (data.mean.tolist(), data.std.tolist(), data.standardized) == ([0, 0, 0], [1, 1, 1], False)


def test_groups_and_order_of_arrays(npz):
    person, when = np.arange(40) // 4, np.arange(40)[::-1].copy()
    x = np.stack([person, when], 1) + 0.5
    path = npz(x=x, y=Y, person=person, when=when)
    data = load(path, split_by="person")
    held = [set(split.x[:, 0]) for split in (data.train, data.reg, data.test)]
    assert all(held)
    assert not held[0] & held[1] | held[0] & held[2] | held[1] & held[2]
    data = load(path, time_order="when")
    assert data.train.x[:, 1].max() < data.reg.x[:, 1].min() <= data.reg.x[:, 1].max() < data.test.x[:, 1].min()


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": X, "y": Y}, {"split_by": "person"}, "no array 'person' to split by; found x, y"),
        ({"x": X, "y": Y, "person": Y[:5]}, {"split_by": "person"}, "person has shape (5,); to split by it, one value"),
        ({"x": X, "y": Y, "when": Y.astype(str)}, {"time_order": "when"}, "when has dtype <U"),
        (
            {"x": X, "y": Y, "p": np.arange(40), "x_test": X[:4], "y_test": Y[:4], "p_test": np.arange(4)},
            {"split_by": "p"},
            "'p' '0' is in the test split and in training (4 such)",
        ),
        ({"x": X, "y": Y}, {"drop": ("a",)}, "is for tables only"),
        ({"x": X, "y": Y}, {"task": "regression", "keys": {"x": "z"}}, "no array 'z'"),
    ],
)
def test_what_cannot_be_split_by(npz, arrays, options, message):
    with pytest.raises(UserError) as error:
        load(npz(**arrays), **options)
    assert message in str(error.value)
