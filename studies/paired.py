"""Two arms compared by seed."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

from crossreg.studies.claims import Verdict, interval, with_interval
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = ["all_above", "all_below", "differences", "said_of"]

Value = Callable[[Measurement], float]


def differences(
    rows: list[Measurement], one: Mapping[str, Any], other: Mapping[str, Any], value: Value | str
) -> list[float]:
    """Return by how much a value of one arm is above that of another, for the seeds that both have.

    Args:
        rows: of a study.
        one: what its rows have under some keys.
        other: likewise.
        value: of a row, or the key under which it is.
    """
    read = value if callable(value) else lambda row: row[value]
    others = {row["seed"]: read(row) for row in those(rows, **other)}
    return [read(row) - others[row["seed"]] for row in those(rows, **one) if row["seed"] in others]


def all_below(found: Mapping[str, list[float]], most: float = 0.0, digits: int = 3) -> Verdict | None:
    """Return a verdict that is shown where every interval lies below a number; None where a difference is missing.

    Args:
        found: differences by seed, by what they are of.
        most: the number.
        digits: of the evidence.
    """
    return _judged(found, lambda mean, half: mean + half < most, digits)


def all_above(found: Mapping[str, list[float]], least: float = 0.0, digits: int = 3) -> Verdict | None:
    """Return a verdict that is shown where every interval lies above a number; see `all_below`."""
    return _judged(found, lambda mean, half: mean - half > least, digits)


def _judged(found: Mapping[str, list[float]], shown: Callable[[float, float], bool], digits: int) -> Verdict | None:
    if not found or not all(found.values()):
        return None
    intervals = {said: interval(values) for said, values in found.items()}
    evidence = ", ".join(f"{said} {with_interval(*pair, digits)}" for said, pair in intervals.items())
    return Verdict(all(shown(*pair) for pair in intervals.values()), evidence)


def said_of(values: list[float], digits: int = 3) -> str:
    """Return a mean with half its interval, as text."""
    return with_interval(*interval(values), digits)
