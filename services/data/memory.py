"""Whether there is memory for what a file says it holds; a damaged or hostile header may say anything."""

from __future__ import annotations

import psutil

from crossreg.core.errors import UserError

__all__ = ["require_memory"]


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
