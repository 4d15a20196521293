"""Sequences of one length and of several, windows of recordings, and the formats they come in."""

import importlib.util
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.inputs import Sequence
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.services.data.sequences import read_pickled_array

RNG = np.random.default_rng(0)
LENGTHS = RNG.integers(3, 12, 60)
X = RNG.normal(size=(60, 2, 12)).astype(np.float32) * np.array([[1.0], [50.0]], np.float32)
Y = np.arange(60) % 2
PADDED = np.where(np.arange(12) < LENGTHS[:, None, None], X, np.nan)


def load(tmp_path: Path, *, options: dict[str, Any] | None = None, **arrays: Any) -> Dataset:
    np.savez(tmp_path / "sequences.npz", **{"y": Y} | arrays)
    return load_data(DataConfig(name=str(tmp_path / "sequences.npz"), **options or {}))


def everything(data: Dataset) -> np.ndarray:
    return np.concatenate([data.train.x, data.reg.x, data.test.x])


@pytest.mark.parametrize("time", ["first", "last"])
@pytest.mark.parametrize("how", ["NaN", "lengths"])
def test_lengths_are_said_by_nan_or_by_an_array(tmp_path: Path, time: str, how: str) -> None:
    x = PADDED if how == "NaN" else np.where(np.isnan(PADDED), 7.0, PADDED)
    lengths = {} if how == "NaN" else {"lengths": LENGTHS}
    data = load(tmp_path, x=x.transpose(0, 2, 1) if time == "first" else x, **lengths)
    assert data.inputs == Sequence(time, True)  # type: ignore[arg-type]
    assert data.input_shape == (2, int(LENGTHS.max()))
    assert sorted((~np.isnan(everything(data)[:, 0])).sum(1)) == sorted(LENGTHS)
    # what follows an end counts neither as a value nor as a step
    of_train = data.train.x[:, 1][~np.isnan(data.train.x[:, 1])]
    assert (data.mean[1], data.std[1]) == pytest.approx((of_train.mean(), of_train.std()), rel=1e-5)
    assert any(f"sequences of {LENGTHS.min()} to {LENGTHS.max()} steps of 2 values" in note for note in data.notes)
    assert np.isfinite(data.example).all()
    assert data.example.dtype == PADDED.dtype  # which MLflow holds requests to
    assert data.example.shape[1 if time == "first" else 2] == min(
        (~np.isnan(data.test.x[:2, 0])).sum(1)
    )  # as it is stored


def test_rows_are_sequences_where_an_axis_of_time_is_said(tmp_path: Path) -> None:
    data = load(tmp_path, x=X[:, 0], options={"time_axis": "last"})
    assert data.input_shape == (1, 12)
    assert isinstance(data.inputs, Sequence)
    assert load(tmp_path, x=X[:, 0]).input_shape == (12,)


def test_bytes_and_whole_numbers_become_floats(tmp_path: Path) -> None:
    x = (np.arange(720) % 200).reshape(60, 2, 6)
    for dtype in ("int16", "uint8"):
        assert load(tmp_path, x=x.astype(dtype), options={"time_axis": "last"}).train.x.dtype == np.float32


def test_times_of_large_numbers_stay_apart(tmp_path: Path) -> None:
    clock = 1.7e9 + np.arange(720.0).reshape(60, 1, 12) / 16
    data = load(tmp_path, x=np.concatenate([clock, X[:, :1]], 1))
    assert len(np.unique(everything(data)[:, 0])) == 720
    assert isinstance(data.inputs, Sequence)
    np.testing.assert_allclose(data.example[:, 0], clock[np.isin(clock[:, 0, 0], data.example[:, 0, 0])][:, 0])


@pytest.mark.parametrize(
    ("arrays", "options", "message"),
    [
        ({"x": np.where(X > 120, np.nan, X)}, {}, "sequence .* is nan at step .* before its end"),
        ({"x": np.where(np.arange(12) > 4, np.inf, X)}, {}, "is inf at step 5"),
        ({"x": np.where(np.arange(60)[:, None, None] == 3, np.nan, X)}, {}, "sequence 3 has no steps; drop it"),
        ({"x": X, "lengths": LENGTHS + 5}, {}, "lengths of x go from .* to 16; x has 12 steps, so 1 to 12 are allowed"),
        ({"x": X, "lengths": LENGTHS * 0.5}, {}, "lengths of x have dtype float64"),
        ({"x": X, "lengths": LENGTHS[:5]}, {}, r"shape \(5,\); one whole number for each of 60 sequences"),
        ({"x": X, "lengths": LENGTHS, "x_test": X[:9], "y_test": Y[:9]}, {}, "lengths and lengths_test come together"),
        ({"x": X, "x_test": X[:9, :1], "y_test": Y[:9]}, {}, "x has 2 and x_test has 1 channels; they must be equal"),
        ({"x": X}, {"window": 20}, "window is 20, and the longest recording has 12 steps; take less"),
        ({"x": X}, {"hop": 2}, "hop is 2, and no window is given"),
        ({"x": X[:, :, 0]}, {"window": 2}, "window=2 is for sequences only"),
    ],
)
def test_what_is_refused(tmp_path: Path, arrays: dict[str, Any], options: dict[str, Any], message: str) -> None:
    with pytest.raises((UserError, ValueError), match=message):
        load(tmp_path, options=options, **arrays)


def test_a_longer_test_split_is_as_long_as_it_is(tmp_path: Path) -> None:
    data = load(tmp_path, x=PADDED[:, :, :11], x_test=np.tile(X[:9], 2), y_test=Y[:9])
    assert data.input_shape == (2, 24)
    assert np.isnan(data.train.x[:, :, 11:]).all()
    assert np.isfinite(data.test.x).all()


def test_zeros_that_look_like_padding_are_said(tmp_path: Path) -> None:
    zeros = np.nan_to_num(PADDED, nan=0.0)
    data = load(tmp_path, x=zeros)
    assert any("sequences end in 2 to 9 steps of zeros in every channel" in note for note in data.notes)
    assert not any("zeros" in note for note in load(tmp_path, x=X).notes)


# windows


def test_windows_of_a_recording_stay_in_one_split(tmp_path: Path) -> None:
    tagged = PADDED.copy()
    tagged[:, 0] = np.where(np.isnan(PADDED[:, 0]), np.nan, np.arange(60)[:, None])
    data = load(tmp_path, x=tagged, options={"window": 3, "hop": 2})
    assert data.input_shape == (2, 3)
    found = [set(split.x[:, 0].ravel()) for split in (data.train, data.reg, data.test)]
    assert all(found)
    assert not found[0] & found[1]
    assert not (found[0] | found[1]) & found[2]
    assert len(everything(data)) == sum(1 + (length - 3) // 2 for length in LENGTHS)
    assert any("windows of one recording stay in one split" in note for note in data.notes)
    labels = np.concatenate([data.train.y, data.reg.y, data.test.y])
    np.testing.assert_array_equal(labels, everything(data)[:, 0, 0] % 2)


def test_what_is_shorter_than_a_window_is_left_out_and_said(tmp_path: Path) -> None:
    data = load(tmp_path, x=PADDED, options={"window": 6})
    short = int((LENGTHS < 6).sum())
    assert any(f"{short} recordings are shorter and left out" in note for note in data.notes)
    assert len(everything(data)) == sum(length // 6 for length in LENGTHS)


def test_persons_stay_in_one_split(tmp_path: Path) -> None:
    person = np.arange(60) // 6
    tagged = X.copy()
    tagged[:, 0] = person[:, None]
    data = load(tmp_path, x=tagged, person=person, options={"window": 4, "split_by": "person"})
    found = [set(split.x[:, 0].ravel()) for split in (data.train, data.reg, data.test)]
    assert sum(map(len, found)) == len(set.union(*found)) == 10


# formats

HEADER = "# a remark\n@problemName few\n@timeStamps false\n@missing false\n@univariate false\n@dimensions 2\n"


def write_ts(path: Path, x: np.ndarray, y: np.ndarray, target: str = "@classLabel true a b") -> None:
    rows = []
    for one, label in zip(x, y, strict=True):
        kept = one[:, ~np.isnan(one[0])]
        rows.append(":".join(",".join(f"{v:.6g}" for v in channel) for channel in kept) + f":{label}")
    path.write_text(HEADER + f"@equalLength false\n{target}\n@data\n" + "\n".join(rows) + "\n")


def test_files_of_the_time_series_community(tmp_path: Path) -> None:
    labels = np.array(["a", "b"])[Y]
    write_ts(tmp_path / "few_TRAIN.ts", PADDED[:40], labels[:40])
    write_ts(tmp_path / "few_TEST.ts", PADDED[40:], labels[40:])
    data = load_data(DataConfig(name=str(tmp_path / "few_TRAIN.ts")))
    assert (data.classes, len(data.train) + len(data.reg), len(data.test)) == (("a", "b"), 40, 20)
    assert "the test split is few_TEST.ts" in data.notes
    longest = data.input_shape[1]
    np.testing.assert_allclose(data.test.x, PADDED[40:, :, :longest], rtol=1e-5)
    write_ts(tmp_path / "numbers.ts", PADDED, np.round(RNG.normal(size=60), 3), "@targetLabel true")
    numbers = load_data(DataConfig(name=str(tmp_path / "numbers.ts"), task="regression"))
    assert numbers.task == "regression"
    assert len(numbers.test) == 12


def test_a_damaged_file_of_theirs_is_refused(tmp_path: Path) -> None:
    (tmp_path / "bad.ts").write_text("@problemName few\nno header\n")
    with pytest.raises(UserError, match=r"cannot be read as a \.ts file"):
        load_data(DataConfig(name=str(tmp_path / "bad.ts")))


def test_watch_is_windows_of_two_seconds() -> None:
    data = load_data(DataConfig(name="watch", split_by="subject"))
    assert data.input_shape == (6, 100)
    assert len(data.classes) == 7
    assert len(everything(data)) == 2369
    assert np.isfinite(everything(data)).all()
    with pytest.raises(UserError, match="watch has no 'person' to split by; it has subject"):
        load_data(DataConfig(name="watch", split_by="person"))


def test_japanese_vowels_have_lengths_of_their_own() -> None:
    data = load_data(DataConfig(name="japanese-vowels"))
    assert (len(data.train) + len(data.reg), len(data.test), data.input_shape) == (270, 370, (12, 29))
    assert len(data.classes) == 9


def test_a_pickle_of_anything_else_is_not_read(tmp_path: Path) -> None:
    import pickle

    np.save(tmp_path / "bad.npy", np.array({"x": Path("here")}, dtype=object), allow_pickle=True)
    with (tmp_path / "bad.npy").open("rb") as file, pytest.raises(pickle.UnpicklingError, match="not what an array is"):
        read_pickled_array(file)


def test_a_package_that_is_not_there_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(UserError, match="these data are a file of the package seglearn"):
        load_data(DataConfig(name="watch"))
