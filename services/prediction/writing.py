"""Predictions to a file: written aside and renamed, so that it is there whole or not at all."""

from __future__ import annotations

import contextlib
import os
from pathlib import Path
from typing import TYPE_CHECKING

from crossreg.core.errors import UserError

if TYPE_CHECKING:
    import pandas as pd

__all__ = ["check_output", "write"]

_KINDS = (".csv", ".parquet")


def check_output(path: Path) -> None:
    """Find what would fail once all is predicted.

    Raises:
        UserError: another kind of file, or a folder that is not there or cannot be written to.
    """
    if path.suffix.lower() not in _KINDS:
        raise UserError(f"--output {str(path)!r} ends in {path.suffix!r}; allowed are {', '.join(_KINDS)}")
    folder = path.absolute().parent
    if not folder.is_dir():
        raise UserError(f"--output {str(path)!r}: there is no folder {folder}; make it first")
    if not os.access(folder, os.W_OK) or path.is_dir():
        raise UserError(f"--output {str(path)!r} cannot be written")


def write(frame: pd.DataFrame, path: Path) -> None:
    """Write a frame as its file's ending says.

    Raises:
        UserError: it cannot be written; an earlier file of that name is then as it was.
    """
    draft = path.with_name(f".crossreg-{os.getpid()}{path.suffix}")
    try:
        if path.suffix.lower() == ".parquet":
            frame.to_parquet(draft, index=False)
        else:
            frame.to_csv(draft, index=False)
        draft.replace(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            draft.unlink()
        raise UserError(f"--output {str(path)!r} cannot be written: {error.strerror or error}") from error
