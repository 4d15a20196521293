"""Throwing bad input at an entry point: how much of what, and what must come of it."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis.strategies import SearchStrategy

from crossreg.jobs import cli

Case = TypeVar("Case")

EXAMPLES = {
    "settings": 70,
    "yaml": 35,
    "flags": 50,
    "text": 40,
    "addresses": 40,
    "arrays": 50,
    "archives": 25,
    "tables": 45,
    "images": 30,
    "checkpoints": 50,
    "resumed": 4,
    "exported": 60,
    "spools": 25,
    "requests": 70,
}
"""How many of each kind are thrown; `throw` fails where it were fewer."""


def throw(name: str, cases: SearchStrategy[Case], at: Callable[[Case], Any]) -> None:
    """Throw as many cases as `EXAMPLES` says, always the same ones."""
    thrown = 0

    @settings(
        max_examples=EXAMPLES[name],
        derandomize=True,
        deadline=None,
        database=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(cases)
    def one(case: Case) -> None:
        nonlocal thrown
        thrown += 1
        at(case)

    one()
    assert thrown >= EXAMPLES[name]


class ReachedRayError(BaseException):
    """Bad input passed every check; BaseException, so that nothing on the way takes it for a failure."""


def everything(folder: Path) -> dict[str, tuple[int, int]]:
    """Return every path below a folder, with its size and time of change."""
    return {
        str(path): (path.lstat().st_size, path.lstat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() or path.is_symlink()
    } | {str(path): (0, 0) for path in folder.rglob("*") if path.is_dir()}


@dataclass
class Shell:
    """The command line, in this process and in a folder of its own."""

    folder: Path
    monkeypatch: pytest.MonkeyPatch
    capfd: pytest.CaptureFixture[str]

    def refuses(self, *arguments: str, naming: tuple[str, ...] = ()) -> str:
        """Run a command that must fail with one clear message and leave everything as it was; return the message."""
        before = everything(self.folder.parent)
        self.monkeypatch.setattr(sys, "argv", ["crossreg", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        out, err = self.capfd.readouterr()
        assert stop.value.code == 2, err
        refused(err, naming)
        assert out == ""
        assert everything(self.folder.parent) == before
        return err


def refused(message: str, naming: tuple[str, ...] = ()) -> None:
    """Check a message: not empty, not endless, no traceback, and naming one of some words."""
    assert message.strip()
    assert len(message) < 3000, f"{len(message)} characters"
    assert "Traceback" not in message
    seen = "".join(message.split())  # typer's boxes break lines anywhere
    assert not naming or any("".join(word.split()) in seen for word in naming), (message, naming)


def running_as_root() -> bool:
    return hasattr(os, "geteuid") and os.geteuid() == 0
