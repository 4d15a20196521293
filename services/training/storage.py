"""The folder of a run: its checkpoints, and on this machine what is still to be sent to MLflow."""

from __future__ import annotations

import os
import re
import secrets
import tempfile
import unicodedata
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.services.tracking.uri import redact
from crossreg.training.checkpoint import CHECKPOINT_FILE, load_checkpoint

__all__ = ["RunFolder", "check_storage", "filesystem", "kept_checkpoints", "new_name", "read_checkpoint", "take_up"]


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

    def storage(self) -> dict[str, Any]:
        """Return where Ray Train keeps its files, as arguments of its `RunConfig`."""
        if not is_remote(self.storage_path):
            return {"storage_path": self.storage_path, "name": self.name}
        system, path = filesystem(self.storage_path)
        return {"storage_path": path, "storage_filesystem": system, "name": self.name}

    @property
    def local(self) -> Path:
        """Folder on the driver's machine: the run's own, or for a remote one a place that outlives the job."""
        return (_state_home() / "runs" if is_remote(self.storage_path) else Path(self.storage_path)) / self.name

    @property
    def spool(self) -> Path:
        """Local folder of metrics on their way to MLflow."""
        return self.local / "tracking"

    def exists(self) -> bool:
        """Say whether the folder is there."""
        if not is_remote(self.storage_path):
            return self.local.is_dir()
        from pyarrow import fs

        system, path = filesystem(self.location)
        return bool(system.get_file_info(path).type == fs.FileType.Directory)


def _state_home() -> Path:
    # a job's working directory is deleted when it ends, and metrics may still be on their way
    return Path(os.environ.get("XDG_STATE_HOME") or Path.home() / ".local" / "state") / "crossreg"


def kept_checkpoints(latest: Any) -> list[Any]:
    """Return a run's Ray Train checkpoints, the latest first."""
    from pyarrow import fs
    from ray.train import Checkpoint

    folder = latest.path.rpartition("/")[0]
    found = latest.filesystem.get_file_info(fs.FileSelector(folder))
    # their names are the times at which they were reported
    names = sorted((info.base_name for info in found if info.base_name.startswith("checkpoint_")), reverse=True)
    earlier = [name for name in names if name < latest.path.rpartition("/")[2]]
    return [latest, *(Checkpoint(f"{folder}/{name}", latest.filesystem) for name in earlier)]


def take_up(load: Callable[[dict[str, Any]], object], checkpoints: list[Any], described: dict[str, Any]) -> str | None:
    """Continue from the first of a run's checkpoints that can be read.

    Args:
        load: takes its state, such as `Trainer.load_state_dict`.
        checkpoints: of Ray Train, or `LocalCheckpoint`s, the latest first.
        described: what they say of themselves; see `checkpoint_identity`.

    Returns:
        What is to be said where that is not the first of all.

    Raises:
        UserError: none can be read; says why the first cannot.
    """
    mistake: UserError | None = None
    for kept in checkpoints:
        try:
            with kept.as_directory() as directory:
                state = load_checkpoint(directory, **described)
            load(state)
        except UserError as error:
            mistake = mistake or error
        else:
            step = state["step"]
            return None if mistake is None else f"{mistake}; the one before it, of step {step}, is used instead"
    assert mistake is not None
    raise mistake


def is_remote(storage_path: str) -> bool:
    """Say whether a storage path is a URI rather than a local folder."""
    return "://" in storage_path and not storage_path.startswith("file://")


def new_name(run_name: str) -> str:
    """Return a folder name that no other run has: run name, time, a few random digits."""
    # Ray takes names in ASCII alone
    plain = re.sub(r"[^\w.\-]", "_", unicodedata.normalize("NFKD", run_name).encode("ascii", "ignore").decode())
    return f"{plain}-{datetime.now():%Y%m%d-%H%M%S}-{secrets.token_hex(2)}"


def filesystem(storage_path: str) -> tuple[Any, str]:
    """Return the pyarrow file system of a remote storage path, and the path within it.

    pyarrow's own (S3, GCS, HDFS) come first, then whatever fsspec knows.

    Raises:
        UserError: neither knows the URI, or it cannot be opened.
    """
    from pyarrow import fs

    try:
        return fs.FileSystem.from_uri(storage_path)
    except Exception as error:
        try:
            import fsspec

            found, path = fsspec.core.url_to_fs(storage_path)
            return fs.PyFileSystem(fs.FSSpecHandler(found)), path
        except Exception:
            raise UserError(f"storage path {storage_path!r} cannot be opened: {error}") from error


def refuse_credentials(uri: str, what: str) -> None:
    """Refuse keys in a URI, which is recorded with the run so that it can be resumed.

    Raises:
        UserError: it holds some.
    """
    if (shown := redact(uri)) != uri:
        raise UserError(
            f"{what} {shown!r} holds credentials; leave them out, and set them in the environment "
            "(AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, GOOGLE_APPLICATION_CREDENTIALS)"
        )


def read_checkpoint(location: str, **expected: Any) -> dict[str, Any]:
    """Return the state of a checkpoint at a local path or a URI; see `crossreg.load_checkpoint`.

    Raises:
        UserError: no such file, a truncated or foreign one, or one of another training.
    """
    if not is_remote(location):
        return _of_training(location, load_checkpoint(location, **expected))
    refuse_credentials(location, "checkpoint")
    system, path = filesystem(location)
    with tempfile.TemporaryDirectory() as folder:
        copy = Path(folder) / CHECKPOINT_FILE
        try:
            with system.open_input_stream(path) as stream:
                copy.write_bytes(stream.read())
        except Exception as error:
            raise UserError(f"no checkpoint at {location}: {error}") from error
        return _of_training(location, load_checkpoint(copy, **expected))


def _of_training(location: str, state: dict[str, Any]) -> dict[str, Any]:
    step = state.get("step")
    if not isinstance(step, int) or isinstance(step, bool) or step < 0:
        raise UserError(f"checkpoint {location} is of step {step!r}; it is not one of a training")
    return state


def check_storage(storage_path: str) -> str:
    """Return the storage path in absolute form, and leave nothing behind.

    Raises:
        UserError: it cannot be written, or no file system answers to the URI.
    """
    if is_remote(storage_path):
        refuse_credentials(storage_path, "storage path")
        system, path = filesystem(storage_path)
        probe = f"{path.rstrip('/')}/.crossreg-{secrets.token_hex(4)}"
        try:
            system.create_dir(path, recursive=True)
            with system.open_output_stream(probe) as stream:
                stream.write(b"")
            system.delete_file(probe)
        except Exception as error:
            raise UserError(f"storage path {storage_path!r} cannot be written: {error}") from error
        return storage_path.rstrip("/")
    folder = local_path(storage_path.removeprefix("file://"), "storage path").resolve()
    existing = next(parent for parent in (folder, *folder.parents) if parent.exists())
    try:
        with tempfile.TemporaryFile(dir=existing):
            pass
    except OSError as error:
        raise UserError(f"storage path {str(folder)!r} cannot be written: {error.strerror}; give another") from error
    return str(folder)
