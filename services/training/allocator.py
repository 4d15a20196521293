"""The C library's memory: what is freed is kept for the next step instead of being given back to the system."""

from __future__ import annotations

import ctypes
import platform
from functools import cache

__all__ = ["keep_freed_memory"]

_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3  # malloc.h
_LARGEST = 32 << 20  # glibc takes no more: larger blocks are the system's


@cache
def keep_freed_memory() -> None:
    """Let glibc keep freed blocks of up to 32 MiB, and up to 256 MiB at the end of a heap, for the whole process.

    Each activation and gradient from 128 KiB on is otherwise asked of the system and given back, in a thread other than
    the main one (as in Ray's workers) at every step: a page fault for every 4 KiB, 5 to 10 % of a training step
    (`docs/performance.md`). Does nothing with other C libraries, or on a GPU's memory.
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, _LARGEST)
        libc.mallopt(_M_TRIM_THRESHOLD, 8 * _LARGEST)
