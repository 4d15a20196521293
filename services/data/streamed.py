"""Data too large for memory: what is held of them, and how the rest is read while training."""

from __future__ import annotations

import hashlib
import os
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.inputs import Array
from crossreg.services.data.config import DataConfig, known
from crossreg.services.data.decode import Progress, decode, size_of
from crossreg.services.data.function import is_function
from crossreg.services.data.images import list_images
from crossreg.services.data.memory import too_large
from crossreg.services.data.raw import Raw, validate
from crossreg.services.data.split import Indices, make_indices
from crossreg.services.data.stream import ImageStream, Streams, TableStream, read_group

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["Streamed", "can_stream", "load_streamed"]

MOST_HELD = 10_000
"""Examples of the regularization and of the test split, which are in memory, each."""
SAMPLE_BYTES = 64 * 2**20
"""Of training examples that are looked at before training, within these numbers:"""
FEWEST_SAMPLED, MOST_SAMPLED = 1_000, 100_000
_COPIES = 4
"""Of a row group that a task has while it reads one: as Arrow, as a frame, as features, mixed."""


@dataclass(frozen=True, eq=False)
class Streamed:
    """Data of which the training split is on disk.

    Attributes:
        raw: what is in memory: a sample of the training split, the other splits.
        indices: of it.
        y: targets of the whole training split.
        streams: the whole training split.
        identity: hex digits of what is not in memory.
    """

    raw: Raw
    indices: Indices
    y: np.ndarray
    streams: Streams
    identity: str


def can_stream(name: str) -> bool:
    """Say whether data of this name are of a kind that can be read while training."""
    if is_function(name) or name in known():
        return False
    path = local_path(name, "data")
    return path.is_dir() or (path.is_file() and path.suffix.lower() == ".parquet")


def load_streamed(config: DataConfig, progress: Progress | None = None) -> Streamed | None:
    """Prepare data for being read while training.

    Args:
        config: what to load; `stream` None asks whether they are too large for memory.
        progress: called with (done, in all), of images decoded or row groups read.

    Returns:
        None where they are to be held in memory.

    Raises:
        UserError: as `load_data`.
    """
    if not can_stream(config.name):
        return None
    path = local_path(config.name, "data")
    return (_images if path.is_dir() else _table)(path.absolute(), config, progress)


def _images(folder: Path, config: DataConfig, progress: Progress | None) -> Streamed | None:
    listed = list_images(folder)
    source, files = config.name, listed.files
    size = (config.image_size, config.image_size) if config.image_size else size_of(files[0])
    a_row = 3 * size[0] * size[1]
    reason = too_large(a_row * (len(files) + len(listed.test_files or ())))
    if config.stream is None and reason is None:
        return None
    notes = [_why(config, reason), *listed.notes]
    validate(Raw(source, None, listed.y, listed.classes))
    indices = make_indices(
        listed.y,
        listed.classes,
        _bounded(config, len(files)),
        own_test=listed.test_files is not None,
        own_reg=listed.own_reg,
    )
    reg, test = _held(indices.reg, "regularization", notes), indices.test
    test_files, y_test = listed.test_files, listed.y_test
    if test_files is not None and y_test is not None:
        kept = np.arange(len(test_files))
        if len(kept) > MOST_HELD:
            kept = np.sort(_held(np.random.default_rng(config.seed).permutation(kept), "test", notes))
        test_files, y_test = [test_files[row] for row in kept], y_test[kept]
    else:
        assert test is not None
        test_files, y_test = [files[row] for row in test], listed.y[test]
    sample = indices.train[: _sample_size(a_row)]
    looked_at = [files[row] for row in np.concatenate([sample, reg])] + test_files
    images = decode(looked_at, config.image_size, progress)
    own = len(sample) + len(reg)
    notes.append(_said_of_sample(len(sample), len(indices.train), "the means, deviations and colours"))
    raw = Raw(
        source, images[:own], listed.y[np.concatenate([sample, reg])], listed.classes, images[own:], y_test,
        inputs=Array("uint8", resize=config.image_size is not None),
        own_reg=None if listed.own_reg is None else np.arange(len(sample), own), notes=notes, skipped=listed.skipped,
    )  # fmt: skip
    train = ImageStream(files, listed.y, indices.train, size, images.shape[1], config.image_size is not None)
    everything = replace(train, rows=np.concatenate([indices.train, reg]))
    held = Indices(np.arange(len(sample)), np.arange(len(sample), own), None)
    y = listed.y[indices.train]
    return Streamed(raw, held, y, Streams(train, everything), _identity_of_files(folder, train))


def _identity_of_files(folder: Path, stream: ImageStream) -> str:
    """Return hex digits of the names, sizes and labels of a split's files; reading all of them would take too long."""
    digest = hashlib.sha256(stream.y.tobytes())
    for row in stream.rows:
        file = stream.files[row]
        digest.update(os.fsencode(f"{Path(file).relative_to(folder).as_posix()}\0{_size_on_disk(file)}\n"))
    return digest.hexdigest()


def _size_on_disk(file: str) -> int:
    try:
        return os.stat(file).st_size  # noqa: PTH116
    except OSError as error:
        raise UserError(f"{file}: the file cannot be read ({error.strerror}); remove it") from error


def _table(path: Path, config: DataConfig, progress: Progress | None) -> Streamed | None:
    from crossreg.services.data.tables import labels_of, rows_of, target_of

    source = config.name
    starts, columns = _row_groups(path)
    count = int(starts[-1])
    reason = too_large(8 * count * columns)
    if config.stream is None and reason is None:
        return None
    if not count:
        raise UserError(f"{source}: the table has 0 rows; at least one example is needed")
    largest = int(np.diff(starts).max())
    if too_large(_COPIES * 8 * largest * columns):
        raise UserError(
            f"{source}: a row group of it has {largest:,} rows, which are read together and do not fit into memory; "
            "write it with smaller ones: frame.to_parquet(path, row_group_size=100_000)"
        )
    notes = [_why(config, reason)]
    target = target_of(source, read_group(str(path), 0), config)
    needed = dict.fromkeys(filter(None, (target, config.split_by, config.time_order)))
    labels = labels_of(source, _all_rows(path, starts, list(needed)), target, config, notes)
    validate(Raw(source, None, labels.y, labels.classes))
    indices = make_indices(
        labels.y, labels.classes, _bounded(config, count), own_test=False, groups=labels.groups, order=labels.order
    )
    assert indices.test is not None
    reg = _held(indices.reg, "regularization", notes)
    test = _held(indices.test, "test", notes)
    sample = indices.train[: _sample_size(8 * columns)]
    looked_at = np.concatenate([sample, reg, test])
    frame = _some_rows(path, starts, looked_at, progress)
    rows = rows_of(source, frame, labels, config, notes)
    notes.append(_said_of_sample(
        len(sample), len(indices.train), "the kinds of columns, categories, medians, means and deviations"
    ))  # fmt: skip
    raw = Raw(source, None, labels.y[looked_at], labels.classes, table=rows, notes=notes)
    ends = np.cumsum([len(sample), len(reg), len(test)])
    held = Indices(np.arange(ends[0]), np.arange(ends[0], ends[1]), np.arange(ends[1], ends[2]))
    train = TableStream.of(str(path), rows.fit(held.train), labels.y, starts, indices.train)
    with path.open("rb") as file:
        identity = hashlib.file_digest(file, "sha256").hexdigest()
    return Streamed(raw, held, labels.y[indices.train], Streams(train, train.with_rows(reg)), identity)


def _row_groups(path: Path) -> tuple[np.ndarray, int]:
    """Return the first row of each row group, and behind them how many rows there are; and the number of columns."""
    from pyarrow import parquet

    try:
        about = parquet.read_metadata(path)
    # pyarrow raises its own exceptions for a damaged file
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a parquet table ({error})") from error
    sizes = [about.row_group(group).num_rows for group in range(about.num_row_groups)]
    return np.cumsum([0, *sizes]), about.num_columns


def _all_rows(path: Path, starts: np.ndarray, columns: list[str]) -> pd.DataFrame:
    """Return some columns of all rows."""
    import pandas as pd

    return pd.concat([read_group(str(path), group, columns) for group in range(len(starts) - 1)], ignore_index=True)


def _some_rows(path: Path, starts: np.ndarray, rows: np.ndarray, progress: Progress | None) -> pd.DataFrame:
    """Return some rows with all columns, in their order; a row group at a time is in memory."""
    import pandas as pd

    ordered = np.sort(rows)
    found: list[Any] = []
    for group in range(len(starts) - 1):
        low, high = np.searchsorted(ordered, starts[group : group + 2])
        if low < high:
            found.append(read_group(str(path), group).iloc[ordered[low:high] - starts[group]])
        if progress is not None:
            progress(group + 1, len(starts) - 1)
    places = np.empty(len(rows), np.int64)
    places[np.argsort(rows, kind="stable")] = np.arange(len(rows))
    return pd.concat(found, ignore_index=True).iloc[places].reset_index(drop=True)


def _bounded(config: DataConfig, count: int) -> DataConfig:
    """Return the configuration with shares that fit into memory."""
    most = MOST_HELD / max(count, 1)
    # a share of what is left by the test split is less than one of all
    shares = {"test_share": min(config.test_share, most)}
    if config.reg_share is not None:
        shares["reg_share"] = min(config.reg_share, most)
    return config.model_copy(update=shares)


def _held(rows: np.ndarray, name: str, notes: list[str]) -> np.ndarray:
    """Return as many shuffled rows of a split as are held in memory, and say where others are left out."""
    if len(rows) > MOST_HELD:
        notes.append(
            f"the {name} split is {MOST_HELD:,} of its {len(rows):,} examples, drawn; so many are held in memory"
        )
    return rows[:MOST_HELD]


def _sample_size(a_row: int) -> int:
    return min(max(SAMPLE_BYTES // a_row, FEWEST_SAMPLED), MOST_SAMPLED)


def _why(config: DataConfig, reason: str | None) -> str:
    asked = "as --stream asks for" if reason is None else reason
    held = f"of the other splits up to {MOST_HELD:,} examples each are in memory"
    return f"training examples are read from disk while training: {asked}; {held}"


def _said_of_sample(sampled: int, count: int, what: str) -> str:
    return f"{what} are those of {'all' if sampled >= count else f'{sampled:,} of'} {count:,} training examples"
