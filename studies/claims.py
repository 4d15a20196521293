"""What is claimed, when it counts as shown, and the interval that says so."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from crossreg.studies.study import Measurement

__all__ = ["Claim", "Verdict", "interval", "with_interval"]


@dataclass(frozen=True)
class Verdict:
    """What measurements say of a claim.

    Attributes:
        shown: it is.
        evidence: in a few words.
    """

    shown: bool
    evidence: str


@dataclass(frozen=True)
class Claim:
    """A sentence that measurements show or do not.

    Attributes:
        name: short.
        text: the sentence.
        judge: returns the verdict on measurements; None where they lack what it takes.
        source: what the source of the claim found, in its numbers; empty where the claim is this project's own.
    """

    name: str
    text: str
    judge: Callable[[list[Measurement]], Verdict | None]
    source: str = ""


def interval(values: Sequence[float]) -> tuple[float, float]:
    """Return the mean and half its 95 % interval, by Student's t; infinite below three values."""
    from scipy.stats import t

    if len(values) < 3:
        return statistics.mean(values), float("inf")
    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return statistics.mean(values), half


def with_interval(mean: float, half: float, digits: int = 3) -> str:
    """Return a mean with half its interval, as text."""
    if math.isinf(half):
        return f"{mean:+.{digits}f} (too few for an interval)"
    return f"{mean:+.{digits}f} ± {half:.{digits}f}"
