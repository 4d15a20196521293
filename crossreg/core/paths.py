"""Local paths that people give."""

from __future__ import annotations

import os
from pathlib import Path

from crossreg.core.errors import UserError

__all__ = ["local_path"]


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
