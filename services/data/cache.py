"""Decoded images kept between runs; a cache that cannot be used is ignored."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from pathlib import Path

import numpy as np

__all__ = ["cache_folder", "read_cached", "write_cached"]

DIGEST_BYTES = hashlib.sha256().digest_size


def cache_folder() -> Path:
    """Return $CROSSREG_CACHE, or crossreg under $XDG_CACHE_HOME, or ~/.cache/crossreg."""
    if own := os.environ.get("CROSSREG_CACHE"):
        return Path(own).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or "~/.cache").expanduser() / "crossreg"


def read_cached(key: str) -> np.ndarray | None:
    """Return the array stored under key, or None if there is none or it is damaged in any byte."""
    try:
        with _file(key).open("rb") as file:
            array = np.load(file, allow_pickle=False)
            stored = file.read()
    # Whatever is wrong with a cache, decoding again is the answer.
    except Exception:
        return None
    return array if isinstance(array, np.ndarray) and stored == _digest(array) else None


def write_cached(key: str, array: np.ndarray) -> None:
    """Store an array under key; silently does nothing where that is impossible (no space, read-only)."""
    target = _file(key)
    temporary: Path | None = None
    try:
        target.parent.mkdir(parents=True, exist_ok=True)
        # Written aside and renamed, so that another process sees all of it or nothing.
        with tempfile.NamedTemporaryFile(dir=target.parent, suffix=".tmp", delete=False) as file:
            temporary = Path(file.name)
            np.save(file, np.ascontiguousarray(array), allow_pickle=False)
            file.write(_digest(array))
        temporary.replace(target)
    except OSError:
        if temporary is not None:
            with contextlib.suppress(OSError):
                temporary.unlink()


def _file(key: str) -> Path:
    return cache_folder() / f"images-{key}.npy"


def _digest(array: np.ndarray) -> bytes:
    return hashlib.sha256(np.ascontiguousarray(array).reshape(-1).view(np.uint8).data).digest()
