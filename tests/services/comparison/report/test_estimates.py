from __future__ import annotations

import math

import numpy as np
import pytest
from scipy import stats

from crossreg.services.comparison.report.estimates import Sample, difference, estimate


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
    assert (one.mean, one.excludes_zero, one.verdict) == (0.5, None, "few seeds")
    none = difference("nll", estimate({0: 1.0}), estimate({1: 1.5}))
    assert (none.values, none.excludes_zero, none.verdict) == ({}, None, "nothing")


def test_two_seeds_have_no_interval_and_no_verdict() -> None:
    """Two equal differences looked like certainty: "wins by 1.3333 points (95 % interval 1.3333 to 1.3333)"."""
    found = difference("accuracy", estimate({0: 0.80, 1: 0.82}), estimate({0: 0.81333, 1: 0.83333}))
    assert found.mean == pytest.approx(-0.01333)
    assert math.isnan(found.low)
    assert (found.excludes_zero, found.verdict) == (None, "few seeds")


def sample(values: np.ndarray, split: str = "one") -> Sample:
    return Sample(split, values)


def test_equal_seeds_on_one_test_split_have_the_interval_of_its_examples() -> None:
    draws = np.random.default_rng(0).normal(0.3, 1, 400)
    found = estimate(dict.fromkeys(range(3), draws.mean()), {seed: sample(draws) for seed in range(3)})
    low, high = stats.t.interval(0.95, df=399, loc=draws.mean(), scale=stats.sem(draws))
    assert (found.low, found.high) == pytest.approx((low, high))


def test_seeds_with_test_splits_of_their_own_are_told_from_those_that_share_one() -> None:
    draws = [np.random.default_rng(seed).normal(0, 1, 50) for seed in range(4)]
    values = {seed: float(one.mean()) for seed, one in enumerate(draws)}
    apart = {seed: sample(one, str(seed)) for seed, one in enumerate(draws)}
    # overlapping splits of one dataset: the variance over seeds is enlarged by .2/.8, Nadeau and Bengio
    assert estimate(values, apart).half_width == pytest.approx(estimate(values).half_width * np.sqrt(1 + 4 * 0.25))
    shared = {seed: sample(one) for seed, one in enumerate(draws)}
    assert estimate(values, shared).half_width > estimate(values).half_width
    # one seed's values are not known: nothing is added for the others
    assert estimate(values, {0: shared[0]}).half_width == estimate(values).half_width


def test_differences_are_paired_by_example() -> None:
    """What is hard for one method is hard for the other: the difference varies far less than either score."""
    rng = np.random.default_rng(0)
    hard = rng.normal(size=500)
    method = {seed: sample(hard + 0.1 + 0.01 * rng.normal(size=500)) for seed in range(3)}
    reference = {seed: sample(hard + 0.01 * rng.normal(size=500)) for seed in range(3)}
    scored = [estimate({s: float(one.values.mean()) for s, one in who.items()}, who) for who in (method, reference)]
    assert scored[0].half_width > 0.05
    paired = difference("nll", *scored)
    assert paired.half_width < 0.01
    assert paired.verdict == "wins"
    elsewhere = {seed: sample(one.values, "another") for seed, one in reference.items()}
    assert difference("nll", scored[0], estimate(scored[1].values, elsewhere)).samples == {}


@pytest.mark.parametrize(("seed_spread", "example_spread"), [(1.0, 0.0), (0.0, 1.0), (0.3, 0.3), (0.05, 1.0)])
def test_intervals_hold_the_truth_as_often_as_they_say(seed_spread: float, example_spread: float) -> None:
    """Seeds and test examples drawn anew a thousand times: the truth, zero, lies inside in 95 of 100."""
    rng = np.random.default_rng(0)
    inside, seeds, examples, times = 0, 4, 100, 1000
    for _ in range(times):
        by_seed = seed_spread * rng.normal(size=(seeds, 1))
        by_example = example_spread * rng.normal(size=(1, examples)) * np.sqrt(examples)
        values = by_seed + by_example + 0.1 * rng.normal(size=(seeds, examples))
        found = estimate(
            {seed: float(row.mean()) for seed, row in enumerate(values)},
            {seed: sample(row) for seed, row in enumerate(values)},
        )
        inside += found.low <= 0 <= found.high
    assert 0.93 <= inside / times <= 0.985


@pytest.mark.parametrize("seeds", [3, 10])
def test_overlapping_test_splits_of_seeds_are_not_taken_for_independent_ones(seeds: int) -> None:
    """Two equally good predictors on one dataset, of which each seed tests on a fifth: few false wins and losses."""
    rng = np.random.default_rng(0)
    false, times, size = 0, 400, 500
    for _ in range(times):
        apart = (rng.random(size) < 0.8).astype(float) - (rng.random(size) < 0.8)
        draws = {seed: sample(apart[rng.permutation(size)[: size // 5]], str(seed)) for seed in range(seeds)}
        found = estimate({seed: float(one.values.mean()) for seed, one in draws.items()}, draws)
        false += not found.low <= 0 <= found.high
    assert false / times <= 0.09
