"""Waiting for a file, a process or a state: never without a deadline, and in words when it passes."""

from __future__ import annotations

import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

__all__ = ["wait_for"]

T = TypeVar("T")


def wait_for(
    condition: Callable[[], T],
    what: str,
    seconds: float = 120,
    *,
    every: float = 0.05,
    process: subprocess.Popen[Any] | None = None,
    said: Path | Callable[[], str] | None = None,
) -> T:
    """Ask until a condition returns something true, and return that.

    Args:
        condition: asked again and again; what it raises ends the waiting.
        what: is waited for, in words that go on after "no".
        seconds: after which the waiting has failed.
        every: seconds between two questions.
        process: must not end before the condition holds.
        said: a log, or what returns its text; its end is shown with a failure.

    Raises:
        AssertionError: the time is over or the process has ended.
    """
    deadline = time.monotonic() + seconds
    while True:
        ended = process is not None and process.poll() is not None
        if found := condition():
            return found
        if ended:
            assert process is not None
            raise AssertionError(f"no {what}: the process ended with status {process.returncode}{_end(said)}")
        if time.monotonic() > deadline:
            raise AssertionError(f"no {what} within {seconds:g} s{_end(said)}")
        time.sleep(every)


def _end(said: Path | Callable[[], str] | None) -> str:
    if said is None:
        return ""
    text = said.read_text(errors="replace") if isinstance(said, Path) else said()
    return f"; the end of what it said:\n{text[-3000:]}"
