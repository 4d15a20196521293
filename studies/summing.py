"""Rows of a study, grouped and summed up."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from studies.study import Row

__all__ = ["factor", "groups", "mean_and_deviation", "median_and_range", "those"]


def groups(rows: list[Row], *keys: str) -> list[tuple[Any, ...]]:
    """Return the combinations of values that occur under these keys, in order."""
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))


def those(rows: list[Row], **wanted: object) -> list[Row]:
    """Return the rows with these values."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def median_and_range(values: Sequence[float], digits: int = 3, range_digits: int = 2) -> str:
    """Return the median, and the smallest and largest value; nothing of no values."""
    if not values:
        return ""
    text = f"{statistics.median(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ({min(values):.{range_digits}g}–{max(values):.{range_digits}g})"


def mean_and_deviation(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Return the mean and the standard deviation.

    Args:
        values: one a seed.
        digits: after the point.
        sign: "+" for one before the mean in any case.
    """
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def factor(ratio: float) -> float:
    """Return how far off a ratio is, either way."""
    return max(ratio, 1 / ratio)
