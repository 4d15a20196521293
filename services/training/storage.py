"""The folder of a run: its checkpoints, and on this machine what is still to be sent to MLflow."""

from __future__ import annotations

import secrets
import tempfile
from datetime import datetime
from pathlib import Path

from crossreg.errors import UserError

__all__ = ["RunFolder", "check_storage", "new_name"]


class RunFolder:
    """Where a run keeps its files.

    Args:
        storage_path: local folder or URI, absolute.
        name: of the run's own folder in it.
    """

    def __init__(self, storage_path: str, name: str) -> None:
        self.storage_path, self.name = storage_path, name

    @classmethod
    def at(cls, location: str) -> RunFolder:
        """Return the folder of an earlier run from its `location`."""
        parent, _, name = location.rstrip("/").rpartition("/")
        return cls(parent, name)

    @property
    def location(self) -> str:
        """Path or URI of the folder."""
        return f"{self.storage_path.rstrip('/')}/{self.name}"

    @property
    def spool(self) -> Path:
        """Local folder of metrics on their way to MLflow."""
        base = Path("runs").resolve() if is_remote(self.storage_path) else Path(self.storage_path)
        return base / self.name / "tracking"


def is_remote(storage_path: str) -> bool:
    """Say whether a storage path is a URI rather than a local folder."""
    return "://" in storage_path and not storage_path.startswith("file://")


def new_name(run_name: str) -> str:
    """Return a folder name that no other run has: run name, time, a few random digits."""
    return f"{run_name}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def check_storage(storage_path: str) -> str:
    """Return the storage path in absolute form, and leave nothing behind.

    Raises:
        UserError: it cannot be written, or no file system answers to the URI.
    """
    if is_remote(storage_path):
        from pyarrow import fs

        try:
            fs.FileSystem.from_uri(storage_path)
        except Exception as error:
            raise UserError(f"storage path {storage_path!r} cannot be opened: {error}") from error
        return storage_path.rstrip("/")
    path = Path(storage_path.removeprefix("file://")).expanduser().resolve()
    existing = next(parent for parent in (path, *path.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"storage path {str(path)!r} cannot be written: {error.strerror}; give another") from error
    return str(path)
