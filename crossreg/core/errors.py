"""The one error for a user's mistake."""

from __future__ import annotations

import difflib
import reprlib
from collections.abc import Iterable
from typing import Any

__all__ = ["UserError", "nearest", "quoted", "some"]

_short = reprlib.Repr()
_short.maxstring = _short.maxother = _short.maxlong = 200
_short.maxlevel = 3


class UserError(ValueError):
    """Something the user gave is wrong; the message says what was given, what is allowed and what to do.

    The command line prints the message alone and exits with code 2.
    """


def quoted(value: Any) -> str:
    """Return a value for a message: its `repr`, cut in the middle where it is long."""
    return _short.repr(value)


def some(names: Iterable[str], most: int = 5) -> str:
    """Return names for a message: each once, and of many the first and how many more there are."""
    known = list(dict.fromkeys(names))
    return ", ".join(known[:most]) + (f" and {len(known) - most} more" if len(known) > most else "")


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest allowed name, or an empty string."""
    matches = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
