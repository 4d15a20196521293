"""Data that are read from disk while training: which rows come when, what is held in memory, what is refused."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import pandas as pd
import psutil
import pytest
import torch
from PIL import Image

from crossreg.batches import Batches
from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, Dataset, Part, Stream, describe, in_lines, load_data
from crossreg.services.data import memory as memory_module
from crossreg.services.data import stream as stream_module
from crossreg.services.data import streamed as streamed_module

ROWS = 700


def table(folder: Path, rows: int = ROWS, groups: int = 60) -> str:
    """Write a Parquet file of row groups of 60 rows; `place` numbers the rows."""
    rng = np.random.default_rng(0)
    size = rng.normal(size=rows)
    frame = pd.DataFrame(
        {
            "size": np.where(rng.random(rows) < 0.1, np.nan, size),
            "city": rng.choice(["Bonn", "Köln", "Ulm"], rows),
            "since": pd.Timestamp("2020-01-01") + pd.to_timedelta(rng.integers(0, 900, rows), unit="D"),
            "floors": pd.array(rng.integers(1, 9, rows), dtype="Int64"),
            "place": np.arange(rows) * 1.5,
            "price": size * 3 + rng.normal(size=rows),
            "sold": rng.choice(["yes", "no"], rows),
        }
    )
    path = folder / "houses.parquet"
    frame.to_parquet(path, row_group_size=groups)
    return str(path)


def both(name: str, **settings: object) -> tuple[Dataset, Dataset]:
    """Return the same data on disk and in memory."""
    streamed = load_data(DataConfig.model_validate({"name": name, "stream": True, **settings}), may_stream=True)
    return streamed, load_data(DataConfig.model_validate({"name": name, **settings}))


def read(stream: Stream, **part: int) -> tuple[np.ndarray, np.ndarray]:
    """Return what a worker reads."""
    pieces = list(stream.pieces(Part(**{"seed": 5, "epoch": 0, "batch": 0, "batch_size": 8, **part})))
    return np.concatenate([piece.read() for piece in pieces]), np.concatenate([piece.y for piece in pieces])


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have several pieces in data that a test can write."""
    monkeypatch.setattr(stream_module, "PIECE_BYTES", 10 * 3 * 36)
    monkeypatch.setattr(stream_module, "WINDOW_BYTES", 4 * 15 * 100)


@pytest.fixture(params=["images", "table"])
def data(request: pytest.FixtureRequest, tmp_path: Path, write_images, small_pieces) -> tuple[Dataset, Dataset]:
    """Data on disk and the same in memory."""
    if request.param == "images":
        write_images(tmp_path / "images", {"cat": 70, "dog": 60})
        return both(str(tmp_path / "images"))
    return both(table(tmp_path), target="price", drop=("sold",))


def test_splits_and_statistics_are_those_in_memory(data):
    streamed, memory = data
    assert streamed.num_train == len(memory.train)
    for name in ("train", "reg", "test"):  # of few examples the sample is all of them
        for part in "xy":
            found, expected = (getattr(getattr(one, name), part) for one in data)
            np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(streamed.mean, memory.mean)
    np.testing.assert_array_equal(streamed.std, memory.std)
    assert streamed.inputs == memory.inputs
    assert streamed.fingerprint != memory.fingerprint


def rows_of(x: np.ndarray) -> list[bytes]:
    return sorted(row.tobytes() for row in x)


def test_an_epoch_holds_every_example_once_in_an_order_of_its_own(data):
    streamed, memory = data
    train = streamed.stream.train
    x, y = read(train, batch_size=1)
    assert rows_of(x) == rows_of(memory.train.x)
    label = {row.tobytes(): target.tobytes() for row, target in zip(memory.train.x, memory.train.y, strict=True)}
    assert all(label[row.tobytes()] == target.tobytes() for row, target in zip(x, y, strict=True))
    again, _ = read(train, batch_size=1)
    np.testing.assert_array_equal(x, again)
    for other in (read(train, batch_size=1, epoch=1)[0], read(train, batch_size=1, seed=6)[0]):
        assert rows_of(other) == rows_of(x)
        assert (other != x).any()


def test_everything_holds_the_regularization_split_too(data):
    streamed, memory = data
    x, _ = read(streamed.stream.everything, batch_size=1)
    assert rows_of(x) == rows_of(np.concatenate([memory.train.x, memory.reg.x]))
    assert len(streamed.stream.everything.y) == len(memory.train) + len(memory.reg)


@pytest.mark.parametrize("workers", [2, 3])
def test_workers_share_an_epoch(data, workers):
    stream = data[0].stream.train
    size = 6
    parts = [read(stream, batch_size=size, rank=rank, workers=workers)[0] for rank in range(workers)]
    assert [len(part) for part in parts] == [len(stream) // size * size // workers] * workers
    together = rows_of(np.concatenate(parts))
    assert len(set(together)) == len(together)
    assert set(together) <= set(rows_of(read(stream, batch_size=1)[0]))


@pytest.mark.parametrize("batch", [1, 4, 8])
def test_a_later_batch_is_reached_without_reading_those_before(data, batch):
    stream = data[0].stream.train
    for rank in range(2):
        x, y = read(stream, rank=rank, workers=2)
        rest, rest_y = read(stream, rank=rank, workers=2, batch=batch)
        np.testing.assert_array_equal(rest, x[batch * 4 :])
        np.testing.assert_array_equal(rest_y, y[batch * 4 :])
    whole, left = (list(stream.pieces(Part(5, 0, first, 8))) for first in (0, len(stream) // 8 - 1))
    assert len(left) == 1 < len(whole)


def test_images_come_in_the_order_that_they_have_in_memory(tmp_path, write_images, small_pieces):
    write_images(tmp_path / "images", {"cat": 70, "dog": 60})
    streamed, memory = both(str(tmp_path / "images"))
    x, y = (torch.from_numpy(part) for part in (memory.train.x, memory.train.y))
    batches = Batches(x, y, 8, seed=5, drop_last=True)
    batches.set_epoch(3)
    found, labels = read(streamed.stream.train, epoch=3)
    for part, index in ((found, 0), (labels, 1)):
        np.testing.assert_array_equal(part, np.concatenate([batch[index].numpy() for batch in batches]))


def test_neighbouring_row_groups_are_mixed(tmp_path, small_pieces):
    streamed, _ = both(table(tmp_path), target="price", drop=("sold",))
    pieces = list(streamed.stream.train.pieces(Part(0, 0, 0, 1)))
    assert len(pieces) > 2
    mixed = next(piece for piece in pieces if len(piece.groups) > 1)
    place = next(i for i, name in enumerate(streamed.inputs.features) if name == "place")
    assert len(set((mixed.read()[:10, place] / 1.5 // 60).round())) > 1


def test_a_large_file_is_looked_at_by_a_sample(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_module, "MOST_SAMPLED", 50)
    monkeypatch.setattr(streamed_module, "MOST_HELD", 40)
    name = table(tmp_path)
    streamed, _ = both(name, target="price", drop=("sold",), reg_share=0.1)
    assert (len(streamed.train), len(streamed.reg), len(streamed.test)) == (50, 38, 40)
    assert streamed.num_train == ROWS - 78
    x, _ = read(streamed.stream.train, batch_size=1)
    assert len(x) == ROWS - 78
    held = {row[-1] for part in (streamed.reg, streamed.test) for row in part.x}
    assert len(held) == 78
    assert not held & {row[-1] for row in x}
    said = "\n".join(in_lines(found := describe(streamed)))
    assert found["streamed"]
    assert found["splits"] == {"train": ROWS - 78, "reg": 38, "test": 40}
    assert "are those of 50 of 622 training examples" in said
    # of all targets, not of those that were looked at
    np.testing.assert_allclose(streamed.target_mean, streamed.stream.train.y.mean(0))


def test_a_test_folder_and_a_valid_folder_are_held_in_part(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(streamed_module, "MOST_HELD", 12)
    for place, seed in (("train", 0), ("valid", 1), ("test", 2)):
        write_images(tmp_path / "images" / place, {"cat": 20, "dog": 20}, seed=seed)
    streamed, memory = both(str(tmp_path / "images"))
    assert (streamed.num_train, len(streamed.reg), len(streamed.test)) == (40, 12, 12)
    assert set(rows_of(streamed.test.x)) < set(rows_of(memory.test.x))
    assert set(rows_of(streamed.reg.x)) < set(rows_of(memory.reg.x))
    assert "the test split is 12 of its 40 examples" in "\n".join(streamed.notes)


@pytest.mark.parametrize("kind", ["images", "table"])
def test_the_size_decides(tmp_path, write_images, monkeypatch, kind):
    name, settings = str(tmp_path / "images"), {}
    if kind == "images":
        write_images(tmp_path / "images", {"cat": 70, "dog": 60})
    else:
        name, settings = table(tmp_path), {"target": "sold"}

    def load(**more: object) -> Dataset:
        return load_data(DataConfig.model_validate({"name": name, **settings, **more}), may_stream=True)

    assert load().stream is None
    # less than the data, and more than what is read at a time
    size = 10_000 if kind == "images" else 25_000
    monkeypatch.setattr(memory_module, "MOST_SHARE", size / psutil.virtual_memory().available)
    found = load()
    assert found.stream is not None
    assert "in memory they would take" in "\n".join(found.notes)
    assert load(stream=False).stream is None
    # what trains many times holds its data in memory
    assert load_data(DataConfig.model_validate({"name": name, **settings})).stream is None


def test_a_row_group_that_does_not_fit_is_refused(tmp_path, monkeypatch):
    name = table(tmp_path, groups=ROWS)
    monkeypatch.setattr(memory_module, "MOST_SHARE", 1e-7)
    with pytest.raises(UserError, match="a row group of it has 700 rows, .* write it with smaller ones"):
        load_data(DataConfig(name=name, target="sold"), may_stream=True)


def test_the_fingerprint_changes_with_what_is_on_disk(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(streamed_module, "FEWEST_SAMPLED", 5)
    monkeypatch.setattr(streamed_module, "SAMPLE_BYTES", 1)
    folder = tmp_path / "images"
    write_images(folder, {"cat": 70, "dog": 60})
    config = DataConfig(name=str(folder), stream=True)
    first = load_data(config, may_stream=True)
    moved = shutil.copytree(folder, tmp_path / "elsewhere")
    assert load_data(DataConfig(name=str(moved), stream=True), may_stream=True).fingerprint == first.fingerprint
    file = first.stream.train.files[int(first.stream.train.rows[-1])]  # not in the sample
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(file)
    assert load_data(config, may_stream=True).fingerprint != first.fingerprint


def test_what_cannot_be_read_is_named_and_counted(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(streamed_module, "FEWEST_SAMPLED", 5)
    monkeypatch.setattr(streamed_module, "SAMPLE_BYTES", 1)
    write_images(tmp_path / "images", {"cat": 70, "dog": 60})
    stream = load_data(DataConfig(name=str(tmp_path / "images"), stream=True), may_stream=True).stream.train
    bad = [Path(stream.files[row]) for row in stream.rows[10:13]]
    for file in bad:
        file.write_bytes(b"no image")
    (piece,) = stream.pieces(Part(0, 0, 0, 1))
    with pytest.raises(
        UserError, match=r"cannot be read as an image .* \(3 such files among 78 read together\)"
    ) as said:
        piece.read()
    assert any(str(file) in str(said.value) for file in bad)
    for file in bad:
        Image.fromarray(np.zeros((7, 6, 3), np.uint8)).save(file)
    with pytest.raises(UserError, match="is 6x7 pixels, but .* is 6x6; all images must have one size, or"):
        piece.read()


def test_a_coloured_image_among_grey_ones_is_refused(tmp_path, write_images, monkeypatch):
    monkeypatch.setattr(streamed_module, "FEWEST_SAMPLED", 5)
    monkeypatch.setattr(streamed_module, "SAMPLE_BYTES", 1)
    write_images(tmp_path / "images", {"cat": 70, "dog": 60}, grey=True)
    stream = load_data(DataConfig(name=str(tmp_path / "images"), stream=True), may_stream=True).stream.train
    assert read(stream)[0].shape[1:] == (1, 6, 6)
    Image.fromarray(np.zeros((6, 6, 3), np.uint8)).save(stream.files[int(stream.rows[20])])
    with pytest.raises(UserError, match="is coloured, and all images that were looked at are grey"):
        read(stream)


def test_a_value_that_a_column_cannot_hold_is_named_by_its_row(tmp_path, monkeypatch):
    monkeypatch.setattr(streamed_module, "MOST_SAMPLED", 30)
    frame = pd.DataFrame({"size": ["1.5"] * ROWS, "far": np.arange(ROWS) * 0.5, "sold": [0, 1] * (ROWS // 2)})
    path = tmp_path / "data.parquet"
    frame["size"] = [f"{1 + index % 7}.5" for index in range(ROWS)]
    frame.to_parquet(path, row_group_size=100)
    first = load_data(DataConfig(name=str(path), stream=True, target="sold"), may_stream=True)
    looked_at = {round(float(row[-1] * 2)) for part in (first.train, first.reg, first.test) for row in part.x}
    wrong = min(set(range(ROWS)) - looked_at)
    frame.loc[wrong, "size"] = "large"
    frame.to_parquet(path, row_group_size=100)
    stream = load_data(DataConfig(name=str(path), stream=True, target="sold"), may_stream=True).stream.train
    with pytest.raises(UserError, match=rf"column 'size' holds 'large' in row {wrong + 1}; expected a finite number"):
        read(stream)


@pytest.mark.parametrize(
    ("settings", "may_stream", "said"),
    [
        ({"name": "digits", "stream": True}, True, "stream=True is for image folders and Parquet files only"),
        ({"name": "table.csv", "stream": True}, True, "stream=True is for image folders and Parquet files only"),
        ({"name": "{parquet}", "stream": True, "target": "sold"}, False, "--stream is for `crossreg train` alone"),
        ({"name": "{parquet}", "stream": True}, True, "which column is the target"),
        ({"name": "{parquet}", "stream": True, "target": "sold", "drop": ("towm",)}, True, "--drop names 'towm'"),
        ({"name": "{parquet}", "stream": True, "target": "sold", "window": 5}, True, "for sequences only"),
        (
            {"name": "{parquet}", "stream": True, "target": "city", "task": "regression"},
            True,
            "regression needs|numbers",
        ),
    ],
)
def test_what_is_refused(tmp_path, settings, may_stream, said):
    settings["name"] = settings["name"].replace("{parquet}", table(tmp_path))
    with pytest.raises(UserError, match=said):
        load_data(DataConfig.model_validate(settings), may_stream=may_stream)


def test_groups_and_moments_are_kept_as_in_memory(tmp_path):
    name = table(tmp_path)
    for settings in ({"split_by": "floors"}, {"time_order": "since"}):
        streamed, memory = both(name, target="sold", **settings)
        np.testing.assert_array_equal(streamed.reg.x, memory.reg.x)
        np.testing.assert_array_equal(streamed.test.x, memory.test.x)
        assert rows_of(read(streamed.stream.train, batch_size=1)[0]) == rows_of(memory.train.x)
