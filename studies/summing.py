"""Measurements of a study: chosen, grouped and summed up as text."""

from __future__ import annotations

import statistics
from collections.abc import Sequence
from typing import Any

from crossreg.studies.study import Measurement

__all__ = ["factor", "groups", "mean_and_deviation", "median_and_range", "those"]


def groups(rows: list[Measurement], *keys: str) -> list[tuple[Any, ...]]:
    """Return the combinations of values that occur under these keys, in order of their first occurrence."""
    return list(dict.fromkeys(tuple(row[key] for key in keys) for row in rows))


def those(rows: list[Measurement], **wanted: object) -> list[Measurement]:
    """Return the measurements that have these values under these keys."""
    return [row for row in rows if all(row[key] == value for key, value in wanted.items())]


def median_and_range(values: Sequence[float], digits: int = 3, range_digits: int = 2) -> str:
    """Return the median, with the smallest and largest value in brackets; an empty text for no values.

    Args:
        values: to sum up.
        digits: significant ones of the median.
        range_digits: significant ones of the two others.
    """
    if not values:
        return ""
    text = f"{statistics.median(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ({min(values):.{range_digits}g}–{max(values):.{range_digits}g})"


def mean_and_deviation(values: Sequence[float], digits: int, sign: str = "") -> str:
    """Return the mean and the standard deviation.

    Args:
        values: one a seed.
        digits: after the point.
        sign: "+" to write the sign of a positive mean too.
    """
    text = f"{statistics.mean(values):{sign}.{digits}f}"
    return text if len(values) == 1 else f"{text} ± {statistics.stdev(values):.{digits}f}"


def factor(ratio: float) -> float:
    """Return by what factor, of at least 1, a ratio is off in either direction: 2 for both 2 and 0.5."""
    return max(ratio, 1 / ratio)
