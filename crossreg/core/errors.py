"""The one error for a user's mistake."""

from __future__ import annotations

import difflib
from collections.abc import Iterable

__all__ = ["UserError", "nearest"]


class UserError(ValueError):
    """Something the user gave is wrong; the message says what was given, what is allowed and what to do.

    The command line prints the message alone and exits with code 2.
    """


def nearest(name: str, allowed: Iterable[str]) -> str:
    """Return `"; did you mean 'x'?"` for the closest allowed name, or an empty string."""
    matches = difflib.get_close_matches(name, list(allowed), n=1)
    return f"; did you mean {matches[0]!r}?" if matches else ""
