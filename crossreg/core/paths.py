"""Local paths that people give, and files that are there complete or not at all."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO

from crossreg.core.errors import UserError

__all__ = ["local_path", "written_whole"]


def local_path(given: str | os.PathLike[str], what: str) -> Path:
    """Return a path with `~` expanded, once the operating system can be asked about it.

    Args:
        given: what was given.
        what: names it in the message: "data", "storage path".

    Raises:
        UserError: it holds a zero byte, is too long, names an unknown home, or lies where one may not look.
    """
    try:
        path = Path(given).expanduser()
        path.exists()
    except (OSError, ValueError, RuntimeError) as error:
        shown = str(given) if len(str(given)) <= 100 else f"{str(given)[:100]}..."
        reason = getattr(error, "strerror", None) or str(error)
        raise UserError(f"{what} {shown!r} is no path that can be used here: {reason}; give another") from None
    # where Python answers "does not exist" for what cannot exist
    if "\0" in str(path):
        raise UserError(f"{what} {str(given)[:100]!r} holds a zero byte, which no path can; give another")
    return path


@contextmanager
def written_whole(path: Path) -> Iterator[IO[bytes]]:
    """Open a file to write that is there complete or not at all, after a power cut too; its folder exists.

    Raises:
        OSError: the disk does not take it; what was there before is.
    """
    descriptor, draft = tempfile.mkstemp(dir=path.parent, suffix=".tmp")
    try:
        with os.fdopen(descriptor, "wb") as file:
            yield file
            file.flush()
            os.fsync(file.fileno())
        Path(draft).replace(path)
    except BaseException:
        Path(draft).unlink(missing_ok=True)
        raise
