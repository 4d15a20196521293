"""Whether there is memory for what a file says it holds; a damaged or hostile header may say anything."""

from __future__ import annotations

import psutil

from crossreg.core.errors import UserError

__all__ = ["MOST_SHARE", "require_memory", "too_large"]

MOST_SHARE = 0.2
"""Of free memory that data may take which are held in it: while they are read, split, sent to workers and trained on
they are there up to four times."""


def too_large(size: int) -> str | None:
    """Say why so many bytes of data are not to be held in memory; None where they fit."""
    free = psutil.virtual_memory().available
    if size <= MOST_SHARE * free:
        return None
    return (
        f"in memory they would take {size / 2**30:,.1f} GiB, more than {MOST_SHARE:.0%} of the {free / 2**30:,.1f} GiB "
        "that are free"
    )


def require_memory(source: str, what: str, size: int) -> None:
    """Refuse to allocate more memory than is free.

    Args:
        source: what messages call the data.
        what: which part of it.
        size: bytes it takes once loaded.

    Raises:
        UserError: that much is not free.
    """
    free = psutil.virtual_memory().available
    if size > free:
        raise UserError(
            f"{source}: {what} would take {size / 2**30:,.1f} GiB and {free / 2**30:,.1f} GiB of memory are free; "
            "the file is damaged, or too large for this machine"
        )
