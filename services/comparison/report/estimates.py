"""A mean over seeds with its interval, and the difference between two methods on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

__all__ = ["Difference", "Estimate", "Verdict", "difference", "estimate", "larger_is_better"]

CONFIDENCE = 0.95

Verdict = Literal["wins", "loses", "undecided", "one seed", "nothing"]
"""What the reference does against a method; "nothing" where there is no seed on which both have a score."""


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds of a number.

    Attributes:
        values: by seed; only finite ones.
        mean: NaN without values.
        low: lower end of the 95 % interval of the mean; NaN for fewer than two seeds.
        high: its upper end.
    """

    values: dict[int, float]
    mean: float
    low: float
    high: float

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True)
class Difference(Estimate):
    """A method's score minus the reference's, by seed.

    Attributes:
        excludes_zero: whether the interval does; None where there is no interval.
        verdict: what this means for the reference.
    """

    excludes_zero: bool | None
    verdict: Verdict

    def advantage(self, score: str) -> tuple[float, float, float]:
        """Return by how much the reference is better: mean, and the interval's low and high end."""
        if larger_is_better(score):
            return -self.mean, -self.high, -self.low
        return self.mean, self.low, self.high


def larger_is_better(score: str) -> bool:
    """Say whether a larger score is a better one."""
    return score == "accuracy"


def estimate(values: Mapping[int, float]) -> Estimate:
    """Return the mean of the finite values and its 95 % interval by Student's t.

    Args:
        values: by seed.
    """
    from scipy.special import stdtrit

    finite = {seed: float(value) for seed, value in sorted(values.items()) if math.isfinite(value)}
    n = len(finite)
    if n == 0:
        return Estimate({}, math.nan, math.nan, math.nan)
    # equal values have no spread, not that of rounding
    mean = next(iter(finite.values())) if len(set(finite.values())) == 1 else math.fsum(finite.values()) / n
    if n == 1:
        return Estimate(finite, mean, math.nan, math.nan)
    deviation = math.sqrt(math.fsum((value - mean) ** 2 for value in finite.values()) / (n - 1))
    half = float(stdtrit(n - 1, (1 + CONFIDENCE) / 2)) * deviation / math.sqrt(n)
    return Estimate(finite, mean, mean - half, mean + half)


def difference(score: str, method: Estimate, reference: Estimate) -> Difference:
    """Return a method's score minus the reference's on the seeds that both have.

    Args:
        score: its name, which says what is better.
        method: the method's scores.
        reference: the reference's.
    """
    shared = method.values.keys() & reference.values.keys()
    paired = estimate({seed: method.values[seed] - reference.values[seed] for seed in shared})
    excludes = None if len(shared) < 2 else not paired.low <= 0 <= paired.high
    verdict: Verdict
    if excludes is None:
        verdict = "one seed" if shared else "nothing"
    elif excludes:
        verdict = "loses" if (paired.mean > 0) == larger_is_better(score) else "wins"
    else:
        verdict = "undecided"
    return Difference(paired.values, paired.mean, paired.low, paired.high, excludes, verdict)
