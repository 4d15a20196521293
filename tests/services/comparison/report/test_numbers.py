from __future__ import annotations

import math

import pytest

from crossreg.services.comparison.report.estimates import difference, estimate
from crossreg.services.comparison.report.numbers import brackets, duration, factor, mean, memory, quantity, signed

SPREAD = estimate({0: 0.8, 1: 0.82, 2: 0.84})  # half the interval: 4.3027 * 0.02 / sqrt(3) = 0.04968


def test_a_mean_comes_with_half_its_interval_and_accuracy_in_percent() -> None:
    assert mean("accuracy", SPREAD).replace("\u00a0", " ") == "82.00 ± 4.97"
    assert mean("nll", SPREAD).replace("\u00a0", " ") == "0.820 ± 0.050"
    assert mean("nll", estimate({0: 0.5})) == "0.500"
    assert mean("nll", estimate({})) == "–"


def test_a_difference_comes_with_its_sign_and_interval() -> None:
    paired = difference("nll", SPREAD, estimate({0: 1.0, 1: 1.0, 2: 1.0}))
    assert signed("nll", paired) == "−0.180"
    assert brackets("nll", paired).replace("\u00a0", " ") == "[−0.230, −0.130]"
    assert signed("accuracy", estimate({0: 0.012})) == "+1.20"
    assert brackets("accuracy", estimate({0: 0.012})) == ""
    assert signed("nll", estimate({0: -0.00001})) == "−0.00001"
    assert signed("nll", estimate({0: 0.0})) == "0.000"


@pytest.mark.parametrize(
    ("value", "unit", "text"),
    [
        (1.234e12, "flops", "1.23 TFLOP"),
        (999.96e9, "flops", "1.00 TFLOP"),
        (4.56e6, "examples", "4.56 M examples"),
        (12.0, "examples", "12.0 examples"),
        (81234.0, "worker_seconds", "81,234 worker-seconds"),
        (0.0, "flops", "0 FLOP"),
        (math.nan, "flops", "–"),
    ],
)
def test_compute_has_three_digits_and_a_prefix(value: float, unit: str, text: str) -> None:
    assert quantity(value, unit) == text


def test_times_memory_and_factors() -> None:
    assert [duration(s) for s in (0.0, 4.56, 99.9, 125, 5999.4, 10920)] == [
        "0 s", "4.56 s", "99.9 s", "2 min 05 s", "99 min 59 s", "3 h 02 min",
    ]  # fmt: skip
    assert [memory(b) for b in (0, 2**29, 3 * 2**30)] == ["–", "512 MiB", "3.00 GiB"]
    assert [factor(f) for f in (8.0, 0.1234, 123.4, math.nan)] == ["8.00", "0.123", "123", "–"]
