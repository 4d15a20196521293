from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from services.comparison.report.estimates import difference, estimate


def test_the_interval_is_students_t() -> None:
    values = [0.8, 0.83, 0.79, 0.86]
    found = estimate(dict(enumerate(values)))
    low, high = stats.t.interval(0.95, df=3, loc=np.mean(values), scale=stats.sem(values))
    assert (found.mean, found.low, found.high) == pytest.approx((np.mean(values), low, high), rel=1e-12)
    assert found.half_width == pytest.approx((high - low) / 2)


def test_one_value_has_no_interval_and_none_no_mean() -> None:
    one, none = estimate({4: 0.5}), estimate({})
    assert one.mean == 0.5
    assert math.isnan(one.low)
    assert math.isnan(one.high)
    assert math.isnan(none.mean)


def test_what_is_not_finite_is_left_out() -> None:
    found = estimate({0: 1.0, 1: math.nan, 2: 3.0, 3: math.inf})
    assert found.values == {0: 1.0, 2: 3.0}
    assert found.mean == 2.0


def test_equal_values_have_no_spread_not_that_of_rounding() -> None:
    found = estimate(dict.fromkeys(range(3), 0.1))
    assert (found.mean, found.low, found.high) == (0.1, 0.1, 0.1)


def test_differences_are_paired_by_seed_over_the_seeds_that_both_have() -> None:
    method = estimate({0: 0.9, 1: 0.7, 3: 0.5, 9: 0.0})
    reference = estimate({3: 0.2, 1: 0.6, 0: 0.7, 5: 1.0})
    found = difference("accuracy", method, reference)
    expected = np.array([0.2, 0.1, 0.3])
    assert found.values == pytest.approx({0: 0.2, 1: 0.1, 3: 0.3})
    # the paired interval, which is narrower than that of two independent samples
    low, high = stats.t.interval(0.95, df=2, loc=expected.mean(), scale=stats.sem(expected))
    assert (found.low, found.high) == pytest.approx((low, high))
    p = stats.ttest_rel([0.9, 0.7, 0.5], [0.7, 0.6, 0.2]).pvalue
    assert found.excludes_zero == (p < 0.05)


@pytest.mark.parametrize(
    ("score", "shift", "verdict"),
    [
        ("accuracy", 1.0, "loses"),
        ("accuracy", -1.0, "wins"),
        ("nll", 1.0, "wins"),
        ("nll", -1.0, "loses"),
        ("rmse", -1.0, "loses"),
        ("ece", 0.0, "undecided"),
    ],
)
def test_the_verdict_is_the_references(score: str, shift: float, verdict: str) -> None:
    base = {0: 0.1, 1: 0.2, 2: 0.3}
    other = {seed: value + shift + error for (seed, value), error in zip(base.items(), (-0.01, 0, 0.01), strict=True)}
    found = difference(score, estimate(other), estimate(base))
    assert found.verdict == verdict
    assert found.excludes_zero == (verdict != "undecided")
    lead, low, high = found.advantage(score)
    assert low < lead < high
    assert lead == pytest.approx(-shift if score == "accuracy" else shift)


def test_one_shared_seed_has_a_difference_but_no_verdict() -> None:
    one = difference("nll", estimate({0: 1.0, 1: 2.0}), estimate({1: 1.5, 2: 9.0}))
    assert (one.mean, one.excludes_zero, one.verdict) == (0.5, None, "one seed")
    none = difference("nll", estimate({0: 1.0}), estimate({1: 1.5}))
    assert (none.values, none.excludes_zero, none.verdict) == ({}, None, "nothing")
