"""The spool: an append-only file on the driver's disk that every point passes through before it is sent.

One JSON object a line: `{"metrics": {key: value}, "step": s, "time": ms}`, `{"tags": {}}`, `{"status": ...}`.
The time is stamped here, once: MLflow's primary key is (key, timestamp, step, run, value), so sending a
line a second time adds no row, and a crash at any moment costs at most a repetition.
"""

from __future__ import annotations

import errno
import json
import logging
import os
import posixpath
import re
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crossreg.core.errors import UserError

__all__ = ["DiskError", "History", "Spool", "now_ms", "replace_file"]

History = dict[str, tuple[list[int], list[float]]]
"""Everything recorded of a run: key -> (steps ascending, values)."""

_KEY = re.compile(r"[/\w.\- :]{1,250}")
_FSYNC_SECONDS = 1.0
_log = logging.getLogger(__name__)


class DiskError(OSError):
    """The disk that records pass through takes nothing more: it is full, read-only or gone."""


def now_ms() -> int:
    """Return the wall-clock time in milliseconds, MLflow's unit."""
    return time.time_ns() // 1_000_000


def replace_file(path: Path, content: bytes) -> None:
    """Write a file so that a reader, or a power cut, sees the old content or the new, never half or nothing.

    Raises:
        DiskError: it cannot be written.
    """
    draft = path.with_name(f".{path.name}.new")
    try:
        with draft.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        draft.replace(path)
    except OSError as error:
        raise DiskError(f"cannot record into {path.parent}: {error.strerror}") from error


class Spool:
    """One run's spool folder, open for writing by this process alone.

    Args:
        directory: the run's own folder, created where missing.

    Raises:
        UserError: the folder cannot be made, or another living process writes to it.
    """

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock_file = FileLock(directory / "lock", timeout=0, thread_local=False)
        self._path = directory / "spool.jsonl"
        self._offset_path = directory / "offset"
        self._mutex = threading.Lock()
        try:
            directory.mkdir(parents=True, exist_ok=True)
            self._lock_file.acquire()
            self._file = self._path.open("ab", buffering=0)
        except Timeout:
            raise UserError(
                f"another process records into {directory}; wait until it ends, or choose another folder."
            ) from None
        except OSError as error:
            raise UserError(
                f"cannot record into {directory}: {error.strerror}; choose a folder that can be written."
            ) from None
        self._size = self._drop_half_line()
        self._synced = time.monotonic()
        self._sent = min(self._read_offset(), self._size)
        self._marks: dict[str, int] = {}
        for entry, _ in self.entries():
            self._mark(entry)

    def _drop_half_line(self) -> int:
        """Truncate what a killed process left of its last line; nobody was told that it is kept."""
        data = self._path.read_bytes()
        size = data.rfind(b"\n") + 1
        if size != len(data):
            self._file.truncate(size)
        return size

    def _read_offset(self) -> int:
        try:
            return int(self._offset_path.read_text())
        except (OSError, ValueError):
            return 0  # sending everything again adds no row

    def _mark(self, entry: dict[str, Any]) -> None:
        for key in entry.get("metrics", ()):
            self._marks[key] = max(entry["step"], self._marks.get(key, entry["step"]))

    def append_metrics(self, metrics: Mapping[str, float], step: int, time_ms: int | None = None) -> None:
        """Append the points whose step is above their key's high-water mark; the others were recorded before.

        Raises:
            ValueError: a name that MLflow refuses (one such point would hold up everything behind it).
            DiskError: the disk refuses the line; nothing of it is kept, so the points may be recorded again.
        """
        values = {key: float(value) for key, value in metrics.items()}
        with self._mutex:
            for key in values.keys() - self._marks.keys():
                if (
                    not _KEY.fullmatch(key)
                    or posixpath.normpath(key) != key
                    or key.startswith(("/", ".."))
                    or key == "."
                ):
                    raise ValueError(f"metric name {key!r} is not allowed: letters, digits, '_-.: ' and single slashes")
            fresh = {key: value for key, value in values.items() if step > self._marks.get(key, step - 1)}
            if fresh:
                entry = {
                    "metrics": fresh,
                    "step": int(step),
                    "time": now_ms() if time_ms is None else int(time_ms),
                }
                self._write(entry)
                self._mark(entry)

    def append(self, entry: dict[str, Any]) -> None:
        """Append a line of another kind (`tags`, `status`), sent after everything before it.

        Raises:
            DiskError: the disk refuses the line.
        """
        with self._mutex:
            self._write(entry)

    def _write(self, entry: dict[str, Any]) -> None:
        line = json.dumps(entry, separators=(",", ":")).encode() + b"\n"
        try:
            written = self._file.write(line)
            if written != len(line):
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
            if time.monotonic() - self._synced >= _FSYNC_SECONDS:
                self._fsync()
        except OSError as error:
            with suppress(OSError):  # what is read-only now takes that neither, and forgets the line by itself
                self._file.truncate(self._size)
            raise self._refused(error) from error
        # Asked, not added up: an interrupt between writing and counting is made good by the next line.
        self._size = self._file.tell()

    def _fsync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced = time.monotonic()

    def _refused(self, error: OSError) -> DiskError:
        return DiskError(f"cannot record into {self.directory}: {error.strerror}")

    def fsync(self) -> None:
        """Make everything appended so far survive a power cut.

        Raises:
            DiskError: the disk refuses.
        """
        with self._mutex:
            if not self._file.closed:
                try:
                    self._fsync()
                except OSError as error:
                    raise self._refused(error) from error

    def entries(self, start: int = 0) -> Iterator[tuple[dict[str, Any], int]]:
        """Yield the complete lines from byte `start` on, each with the byte offset behind it."""
        end, position = self._size, start
        with self._path.open("rb") as file:
            file.seek(start)
            while position < end:
                line = file.readline()
                if not line:
                    return
                position += len(line)
                try:
                    yield json.loads(line), position
                except ValueError:
                    # A power cut can leave a block of zeros; the lines around it are good.
                    _log.warning("skipped an unreadable line of %s before byte %d", self._path, position)
                    yield {}, position

    def history(self) -> History:
        """Return everything recorded, read back from the file."""
        history: History = {}
        for entry, _ in self.entries():
            for key, value in entry.get("metrics", {}).items():
                steps, values = history.setdefault(key, ([], []))
                steps.append(entry["step"])
                values.append(value)
        return history

    @property
    def marks(self) -> dict[str, int]:
        """The last recorded step of every key."""
        with self._mutex:
            return dict(self._marks)

    @property
    def sent(self) -> int:
        """Bytes that the store has acknowledged."""
        return self._sent

    @property
    def waiting(self) -> int:
        """Bytes that the store has not acknowledged."""
        return self._size - self._sent

    def mark_sent(self, offset: int) -> None:
        """Note that the store has acknowledged everything before `offset`."""
        with self._mutex:
            if not self._file.closed:
                self._sent = offset
                with suppress(DiskError):  # what is sent again adds no row
                    replace_file(self._offset_path, str(offset).encode())

    def close(self) -> None:
        """Flush to disk, if it still takes that, and let another process open the folder."""
        with self._mutex:
            if not self._file.closed:
                with suppress(OSError):
                    self._fsync()
                self._file.close()
                self._lock_file.release()
