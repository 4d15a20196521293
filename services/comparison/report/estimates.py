"""A mean over seeds with its interval, and the difference between two methods on the same seeds."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

import numpy as np

__all__ = ["Difference", "Estimate", "Sample", "Verdict", "difference", "estimate", "larger_is_better"]

CONFIDENCE = 0.95
DRAWN_TEST = 0.2 / 0.8
"""Test examples for each that is left, where every seed draws a test split of its own: what is drawn by default."""
FEWEST_SEEDS = 3
"""Below which there is no interval: the spread of two values says next to nothing of that of many."""

Verdict = Literal["wins", "loses", "undecided", "few seeds", "nothing"]
"""What the reference does against a method; "nothing" where there is no seed on which both have a score."""


@dataclass(frozen=True, eq=False)
class Sample:
    """A score's values on single test examples.

    Attributes:
        split: equal for equal test splits.
        values: float64 `[N]`, of which the mean is the score.
    """

    split: str
    values: np.ndarray


@dataclass(frozen=True)
class Estimate:
    """The mean over seeds of a number.

    Attributes:
        values: by seed; only finite ones.
        mean: NaN without values.
        low: lower end of the 95 % interval of the mean; NaN for fewer than three seeds.
        high: its upper end.
        samples: by seed, the values on single test examples where they are known.
    """

    values: dict[int, float]
    mean: float
    low: float
    high: float
    samples: Mapping[int, Sample] = field(default_factory=dict, repr=False, compare=False, metadata={"plain": False})

    @property
    def half_width(self) -> float:
        """Half the interval's width."""
        return (self.high - self.low) / 2


@dataclass(frozen=True, kw_only=True)
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


def estimate(
    values: Mapping[int, float], samples: Mapping[int, Sample] | None = None, test_to_train: float = DRAWN_TEST
) -> Estimate:
    """Return the mean of the finite values and its 95 % interval.

    What differs between seeds and what differs between samples of test examples are added: the variance of the mean
    over seeds, and where all seeds share a test split, which seeds then tell nothing of, that of the mean over its
    examples. Where each seed draws a test split of its own from the same data, splits overlap and the spread over seeds
    is too small: its variance is enlarged by the ratio of test examples to others. The interval is Student's t, with
    Welch and Satterthwaite's degrees of freedom.

    Args:
        values: by seed.
        samples: the values on single test examples, by seed; without them an interval holds the seeds alone.
        test_to_train: test examples for each that is left, where seeds draw their own test splits.

    Source:
        Nadeau and Bengio 2003, Machine Learning 52 (overlapping splits);
        Satterthwaite 1946, Biometrics Bulletin 2(6); crossed random factors, Owen 2007, arXiv:0708.1994.
    """
    from scipy.special import stdtrit

    finite = {seed: float(value) for seed, value in sorted(values.items()) if math.isfinite(value)}
    kept = {seed: one for seed, one in (samples or {}).items() if seed in finite}
    n = len(finite)
    if n == 0:
        return Estimate({}, math.nan, math.nan, math.nan)
    # equal values have no spread, not that of rounding
    equal = len(set(finite.values())) == 1
    mean = next(iter(finite.values())) if equal else math.fsum(finite.values()) / n
    if n < FEWEST_SEEDS:
        return Estimate(finite, mean, math.nan, math.nan, kept)
    spread = math.fsum((value - mean) ** 2 for value in finite.values()) / (n - 1)
    by_example, count = _of_examples(kept, n)
    # test splits that are drawn anew from the same data overlap: seeds are not independent then
    by_seed = spread * (1 / n + (test_to_train if _is_redrawn(kept, n) else 0.0))
    total = by_seed + by_example
    if total <= 0:
        return Estimate(finite, mean, mean, mean, kept)
    freedom = total**2 / (by_seed**2 / (n - 1) + by_example**2 / max(count - 1, 1))
    half = float(stdtrit(freedom, (1 + CONFIDENCE) / 2)) * math.sqrt(total)
    return Estimate(finite, mean, mean - half, mean + half, kept)


def _of_examples(samples: Mapping[int, Sample], seeds: int) -> tuple[float, int]:
    """Return the variance that the sampling of a shared test split gives the mean, and its number of examples."""
    splits = {one.split for one in samples.values()}
    if len(samples) < seeds or len(splits) != 1:
        return 0.0, 1
    means = np.mean([one.values for one in samples.values()], axis=0)
    count = len(means)
    return (float(means.var(ddof=1)) / count if count > 1 else 0.0), count


def _is_redrawn(samples: Mapping[int, Sample], seeds: int) -> bool:
    """Say whether seeds are known to have different test splits."""
    return len(samples) == seeds and len({one.split for one in samples.values()}) > 1


def difference(score: str, method: Estimate, reference: Estimate) -> Difference:
    """Return a method's score minus the reference's on the seeds that both have, paired by example where they can be.

    Args:
        score: its name, which says what is better.
        method: the method's scores.
        reference: the reference's.
    """
    shared = method.values.keys() & reference.values.keys()
    pairs = {seed: (method.samples[seed], reference.samples[seed]) for seed in shared
             if seed in method.samples and seed in reference.samples}  # fmt: skip
    samples = {
        seed: Sample(a.split, a.values - b.values)
        for seed, (a, b) in pairs.items()
        if a.split == b.split and len(a.values) == len(b.values)
    }
    paired = estimate({seed: method.values[seed] - reference.values[seed] for seed in shared}, samples)
    excludes = None if math.isnan(paired.low) else not paired.low <= 0 <= paired.high
    verdict: Verdict
    if excludes is None:
        verdict = "few seeds" if shared else "nothing"
    elif excludes:
        verdict = "loses" if (paired.mean > 0) == larger_is_better(score) else "wins"
    else:
        verdict = "undecided"
    return Difference(
        paired.values, paired.mean, paired.low, paired.high, samples, excludes_zero=excludes, verdict=verdict
    )
