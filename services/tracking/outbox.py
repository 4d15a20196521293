"""Artifacts on their way to the store: files that wait in the spool folder until they are uploaded."""

from __future__ import annotations

import os
import threading
from pathlib import Path
from typing import Any

from crossreg.services.tracking.spool import replace_file

__all__ = ["Outbox"]


class Outbox:
    """The `outbox/` of a spool folder; a file's path in it is its artifact path in the run.

    Kept apart from the spool's order of lines, so that a file that is refused holds up no metrics.
    """

    def __init__(self, directory: Path) -> None:
        self._root = directory / "outbox"
        self._mutex = threading.Lock()

    def put(self, name: str, content: bytes) -> None:
        """Queue a file, in place of an older one of that name.

        Raises:
            ValueError: the name is absolute or leaves the run's artifacts.
        """
        path = self._root / name
        if not name or Path(name).is_absolute() or ".." in Path(name).parts or Path(name).name.startswith("."):
            raise ValueError(f"artifact name {name!r} is not allowed: a relative path without '..'")
        with self._mutex:
            path.parent.mkdir(parents=True, exist_ok=True)
            replace_file(path, content)

    def waiting(self) -> list[str]:
        """Return the artifact paths that are not uploaded yet."""
        found = []
        for folder, _, files in os.walk(self._root):
            found += [
                Path(folder, file).relative_to(self._root).as_posix() for file in files if not file.startswith(".")
            ]
        return sorted(found)

    def send(self, client: Any, run_id: str) -> None:
        """Upload what waits; a file that was replaced meanwhile stays for the next call.

        Raises:
            Exception: the artifact store's, for the first file that it refuses, once all were tried.
        """
        refused: Exception | None = None
        for name in self.waiting():
            path = self._root / name
            before = path.stat().st_mtime_ns
            try:
                client.log_artifact(run_id, str(path), artifact_path=str(Path(name).parent) if "/" in name else None)
            except Exception as error:
                refused = refused or error
                continue
            with self._mutex:
                if path.stat().st_mtime_ns == before:
                    path.unlink()
        if refused is not None:
            raise refused
