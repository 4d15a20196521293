"""Training data that stay on disk: an epoch is a list of pieces, each of which can be read by itself, anywhere."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.inputs import Table

__all__ = ["ImageStream", "Part", "Piece", "Stream", "Streams", "TableStream", "read_group"]

PIECE_BYTES = 4 * 2**20
"""Of decoded images in a piece: what is read at a time is small beside what is in flight."""
WINDOW_BYTES = 16 * 2**20
"""Of a table's features in a piece: so many row groups are mixed with one another, and one at least."""


@dataclass(frozen=True)
class Part:
    """What a worker reads of an epoch.

    Attributes:
        seed: with the epoch decides the order.
        epoch: which pass over the data.
        batch: the first batch that is wanted.
        batch_size: rows in a batch over all workers.
        rank: of this worker.
        workers: how many share the epoch.
    """

    seed: int
    epoch: int
    batch: int
    batch_size: int
    rank: int = 0
    workers: int = 1


class Piece(ABC):
    """Rows that are read together, in the order in which they are trained on.

    Attributes:
        y: their targets, as those of a `Split`.
    """

    y: np.ndarray

    @abstractmethod
    def read(self) -> np.ndarray:
        """Return x as that of a `Split`.

        Raises:
            UserError: names what cannot be read.
        """


class Stream(ABC):
    """A split on disk; rows are shared evenly by workers, and the last ones of an epoch that fill no batch left out."""

    @property
    @abstractmethod
    def y(self) -> np.ndarray:
        """Targets of all rows, as those of a `Split`."""

    @abstractmethod
    def __len__(self) -> int:
        """Return the number of rows."""

    @abstractmethod
    def pieces(self, part: Part) -> Iterator[Piece]:
        """Yield what a worker reads, in order; rows of batches before the first are in none."""


@dataclass(frozen=True, eq=False)
class Streams:
    """What a training reads from disk.

    Attributes:
        train: the training split.
        everything: that and the regularization split, for the last steps of a training that finds its length.
    """

    train: Stream
    everything: Stream


@dataclass(frozen=True, eq=False)
class ImagePiece(Piece):
    """Image files of one size.

    Attributes:
        files: their paths.
        y: int64 `[N]`.
        size: width and height.
        channels: 1 or 3.
        resize: whether images of another size are brought to this one.
        reference: what messages compare a size with.
    """

    files: Sequence[str]
    y: np.ndarray
    size: tuple[int, int]
    channels: int
    resize: bool
    reference: str

    def read(self) -> np.ndarray:
        """Return uint8 `[N, C, H, W]`; all files are tried, so that the message counts those that fail."""
        mistakes, images = [], []
        for file in self.files:
            try:
                images.append(self._read_one(file))
            except UserError as error:
                mistakes.append(str(error))
        if mistakes:
            more = f" ({len(mistakes)} such files among {len(self.files)} read together)" if len(mistakes) > 1 else ""
            raise UserError(mistakes[0] + more)
        found = np.stack(images)
        return found[:, None] if self.channels == 1 else np.ascontiguousarray(found.transpose(0, 3, 1, 2))

    def _read_one(self, file: str) -> np.ndarray:
        from crossreg.services.data.decode import read_image, size_remedy

        # a grey image among coloured ones is repeated; a coloured one among grey ones would lose what it is
        image = read_image(
            file,
            self.size,
            "RGB" if self.channels == 3 else None,
            resize=self.resize,
            remedy=size_remedy(self.reference, self.size),
        )
        if self.channels == 1 and image.ndim == 3:
            raise UserError(f"{file}: is coloured, and all images that were looked at are grey; make it grey")
        return image


@dataclass(frozen=True, eq=False)
class ImageStream(Stream):
    """Rows of a list of image files; their order is that of `crossreg.batches.Batches` in memory.

    Attributes:
        files: paths, those of other rows too.
        labels: int64, of all files.
        rows: int64 `[N]`, of the files that are in the split.
        size: width and height.
        channels: 1 or 3.
        resize: whether images of another size are brought to this one.
    """

    files: Sequence[str]
    labels: np.ndarray
    rows: np.ndarray
    size: tuple[int, int]
    channels: int
    resize: bool

    def __len__(self) -> int:
        return len(self.rows)

    @property
    def y(self) -> np.ndarray:
        """Class indices, int64 `[N]`."""
        found: np.ndarray = self.labels[self.rows]
        return found

    def pieces(self, part: Part) -> Iterator[Piece]:
        """Yield files in a new order every epoch; a file can be read by itself, so all of them are mixed."""
        from crossreg.batches import epoch_order

        order = self.rows[epoch_order(len(self), part.seed, part.epoch).numpy()]
        own = part.batch_size // part.workers
        batches = order[: len(self) // part.batch_size * part.batch_size].reshape(-1, part.workers, own)
        mine = batches[part.batch :, part.rank].reshape(-1)
        at_once = max(1, PIECE_BYTES // (self.channels * self.size[0] * self.size[1]))
        for start in range(0, len(mine), at_once):
            rows = mine[start : start + at_once]
            files = [self.files[row] for row in rows]
            yield ImagePiece(files, self.labels[rows], self.size, self.channels, self.resize, self.files[0])


@dataclass(frozen=True, eq=False)
class TablePiece(Piece):
    """Rows of some row groups of a Parquet file, mixed.

    Attributes:
        path: of the file.
        table: how its columns become features.
        groups: row groups, each with the number of its first row in the file and the rows taken of it.
        order: of all these rows, those that are trained on.
        y: of `order`.
    """

    path: str
    table: Table
    groups: Sequence[tuple[int, int, np.ndarray]]
    order: np.ndarray
    y: np.ndarray

    def read(self) -> np.ndarray:
        """Return float32 `[N, features]`."""
        names = [column.name for column in self.table.columns]
        parts = []
        for group, first, rows in self.groups:
            frame = read_group(self.path, group, names).iloc[rows]
            frame.index = first + rows  # messages name the row of the file
            try:
                parts.append(self.table.encode_columns(frame, []))
            except UserError as error:
                raise UserError(f"{self.path}: {error}") from error
        return np.concatenate(parts)[self.order]


@dataclass(frozen=True, eq=False)
class TableStream(Stream):
    """Rows of a Parquet file; its row groups come in a new order every epoch, and neighbours in it are mixed.

    Attributes:
        path: of the file.
        table: how its columns become features.
        labels: of all rows of the file, int64 `[R]` or float64 `[R, outputs]`.
        starts: int64 `[groups + 1]`, the first row of each row group, and R.
        taken: bool `[R]` as bits (`numpy.packbits`), the rows that are in the split.
    """

    path: str
    table: Table
    labels: np.ndarray
    starts: np.ndarray
    taken: np.ndarray

    @classmethod
    def of(cls, path: str, table: Table, labels: np.ndarray, starts: np.ndarray, rows: np.ndarray) -> TableStream:
        """Return the stream of some rows of a file."""
        return cls(path, table, labels, starts, np.packbits(_mask(len(labels), rows)))

    def with_rows(self, rows: np.ndarray) -> TableStream:
        """Return the stream of these rows too."""
        return replace(self, taken=self.taken | np.packbits(_mask(len(self.labels), rows)))

    def __len__(self) -> int:
        return int(np.bitwise_count(self.taken).sum())

    @property
    def y(self) -> np.ndarray:
        """Targets, int64 `[N]` or float64 `[N, outputs]`."""
        found: np.ndarray = self.labels[np.unpackbits(self.taken, count=len(self.labels)).astype(bool)]
        return found

    def pieces(self, part: Part) -> Iterator[Piece]:
        """Yield windows of row groups, the rows of each mixed."""
        own = part.batch_size // part.workers
        share = len(self) // part.batch_size * own
        skipped = part.batch * own
        at_once = max(1, WINDOW_BYTES // (4 * len(self.table.features)))
        for number, window in enumerate(_windows(self._groups(part, share), at_once)):
            count = sum(len(rows) for _, _, rows in window)
            if skipped >= count:  # nothing of it is read
                skipped -= count
                continue
            mixed = np.random.default_rng([part.seed, part.epoch, part.rank, number]).permutation(count)[skipped:]
            skipped = 0
            y = self.labels[np.concatenate([first + rows for _, first, rows in window])]
            yield TablePiece(self.path, self.table, window, mixed, y[mixed])

    def _groups(self, part: Part, share: int) -> Iterator[tuple[int, int, np.ndarray]]:
        """Yield this worker's rows by row group, `share` in all; a group between two workers is read by both."""
        order = np.random.default_rng([part.seed, part.epoch]).permutation(len(self.starts) - 1)
        begin, end = part.rank * share, (part.rank + 1) * share
        passed = 0
        for group in order:
            rows = self._taken_of(int(group))
            mine = rows[max(0, begin - passed) : max(0, end - passed)]
            if len(mine):
                yield int(group), int(self.starts[group]), mine
            passed += len(rows)
            if passed >= end:
                return

    def _taken_of(self, group: int) -> np.ndarray:
        """Return the rows of a group that are in the split, numbered from its first."""
        first, end = int(self.starts[group]), int(self.starts[group + 1])
        byte = first // 8
        bits = np.unpackbits(self.taken[byte : -(-end // 8)])[first - 8 * byte : end - 8 * byte]
        return np.flatnonzero(bits)


def _windows(
    groups: Iterator[tuple[int, int, np.ndarray]], at_once: int
) -> Iterator[list[tuple[int, int, np.ndarray]]]:
    """Yield neighbouring groups together, of so many rows at most, or one."""
    window: list[tuple[int, int, np.ndarray]] = []
    count = 0
    for one in groups:
        if window and count + len(one[2]) > at_once:
            yield window
            window, count = [], 0
        window.append(one)
        count += len(one[2])
    if window:
        yield window


def _mask(count: int, rows: np.ndarray) -> np.ndarray:
    mask = np.zeros(count, bool)
    mask[rows] = True
    return mask


def read_group(path: str, group: int, columns: Sequence[str] | None = None) -> Any:
    """Return a row group of a Parquet file as a table's rows, a pandas DataFrame.

    Args:
        path: of the file.
        group: its number.
        columns: which are read; None reads all.

    Raises:
        UserError: it cannot be read.
    """
    from pyarrow import parquet

    from crossreg.services.data.tables import tidied

    try:
        with parquet.ParquetFile(path) as file:
            frame = file.read_row_group(
                group, None if columns is None else list(columns), use_threads=False
            ).to_pandas()
    # pandas and pyarrow each raise their own exceptions for a damaged file
    except Exception as error:
        raise UserError(f"{path}: row group {group} cannot be read ({error})") from error
    return tidied(path, frame)
