"""Sequences as people have them: either axis is time, lengths differ, what is wrong is named."""

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.inputs import Sequence, from_json, to_json
from crossreg.inputs.sequence import lengths_of, padded

X = np.arange(24.0).reshape(2, 3, 4)  # two of three channels and four steps


@pytest.mark.parametrize("time", ["first", "last"])
def test_a_model_gets_channels_first(time: str) -> None:
    stored = X.transpose(0, 2, 1) if time == "first" else X
    inputs = Sequence(time)  # type: ignore[arg-type]
    found = inputs.encode(stored, (3, 4))
    assert found.dtype == np.float32
    np.testing.assert_array_equal(found, X)
    assert inputs.stored_shape((3, 4)) == stored.shape[1:]


def test_one_channel_may_be_stored_without_its_axis() -> None:
    for rows in (X[:, 0], X[:, :1]):
        np.testing.assert_array_equal(Sequence("last").encode(rows, (1, 4)), X[:, :1])


def test_lists_of_several_lengths_are_padded() -> None:
    rows = [X[0].T[:2], X[1].T]
    found = Sequence("first", True).encode(rows, (3, 4))
    np.testing.assert_array_equal(found[0, :, :2], X[0, :, :2])
    assert np.isnan(found[0, :, 2:]).all()
    assert list(lengths_of("x", found)) == [2, 4]
    # longer than any in training
    assert Sequence("first", True).encode(rows, (3, 2)).shape == (2, 3, 4)


def test_an_offset_is_taken_off_before_float32() -> None:
    x = 1.7e9 + np.arange(12.0).reshape(2, 2, 3) / 8
    found = Sequence("last", False, (1.7e9, 0.0)).encode(x, (2, 3))
    np.testing.assert_array_equal(found[:, 0], x[:, 0] - 1.7e9)


@pytest.mark.parametrize(
    ("rows", "differ", "message"),
    [
        (X[:, :2], True, r"inputs\[0\] has shape \(2, 4\); this model takes \(3, any number of steps\)"),
        (X[:, :, :3], False, r"inputs\[0\] has shape \(3, 3\); this model takes \(3, 4\)"),
        (np.repeat(X, 3, 2), False, r"takes \(3, 4\); cut longer ones into windows of 4 steps"),
        (np.where(X == 5, np.nan, X), True, "sequence 0 is nan at step 1 of channel 1, before its end at 4"),
        (np.where(X > 14, np.inf, X), True, "sequence 1 is inf at step"),
        (np.where(X[:, :1] > 11, np.nan, X), True, "sequence 1 has no steps; drop it"),
        (np.where(X % 4 > 2, np.nan, X), False, "sequence 0 ends after 3 steps, and all must have 4"),
        (np.array([[["a"]]]), True, "inputs have dtype <U1; this model takes numbers"),
    ],
)
def test_what_is_no_such_sequence_is_refused(rows: np.ndarray, differ: bool, message: str) -> None:
    with pytest.raises(UserError, match=message):
        Sequence("last", differ).encode(rows, (3, 4))


def test_padding_is_nan_after_the_end() -> None:
    found = padded([X[0], X[1, :, :1]], 6)
    assert found.shape == (2, 3, 6)
    assert list(lengths_of("x", found)) == [4, 1]


def test_json_there_and_back() -> None:
    inputs = Sequence("first", True, (1.5, 0.0))
    assert from_json(to_json(inputs)) == inputs
    with pytest.raises(UserError, match="time is 'middle'; allowed are first and last"):
        from_json(to_json(inputs) | {"time": "middle"})
