"""Rows of a study, grouped and summed up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from services.reproduce.study import Row

__all__ = ["groups", "median_and_range", "those"]


def groups(rows: list[Row], *keys: str) -> list[tuple[Any, ...]]:
    """Return the combinations of values that occur under these keys, in order."""
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))


def those(rows: list[Row], **wanted: object) -> list[Row]:
    """Return the rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def median_and_range(values: Sequence[float], digits: int = 3) -> str:
    """Return the median, and the smallest and largest value."""
    text = f"{statistics.median(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits - 1}g}–{max(values):.{digits - 1}g})"
