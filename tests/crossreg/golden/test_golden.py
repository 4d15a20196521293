"""The numbers of a short training stay what they are."""

from __future__ import annotations

import json
from typing import Any

import pytest

from tests.crossreg.golden.training import FILE, INTERVAL, STEPS, Numbers, machine, run

# elsewhere sums are taken in another order, which moves the numbers by up to 5e-7 between instruction sets
RELATIVE, ABSOLUTE = 1e-5, 1e-8

HYPERPARAMETERS = ("noise/00_1", "noise/01_4", "temperature", "l2")


@pytest.fixture(scope="module")
def golden() -> dict[str, Any]:
    return dict(json.loads(FILE.read_text()))


@pytest.fixture(scope="module")
def numbers() -> Numbers:
    return run()


def test_losses_and_hyperparameters_are_as_they_were(golden: dict[str, Any], numbers: Numbers) -> None:
    expected: Numbers = golden["numbers"]
    assert numbers.keys() == expected.keys()
    exact = golden["made_on"] == machine()
    for key, values in expected.items():
        wanted = values if exact else pytest.approx(values, rel=RELATIVE, abs=ABSOLUTE)
        assert numbers[key] == wanted, key


def test_a_second_training_gives_the_same_bits(numbers: Numbers) -> None:
    assert run() == numbers


def test_what_is_kept_is_of_a_training_that_learns(golden: dict[str, Any]) -> None:
    numbers: Numbers = golden["numbers"]
    learned = [f"regularizers/{name}" for name in HYPERPARAMETERS]
    assert set(numbers) == {"train/loss", "reg/loss", "reg/nll", *learned}
    assert len(numbers["train/loss"]) == STEPS
    assert len(numbers["reg/loss"]) == STEPS // INTERVAL
    assert len(numbers["reg/nll"]) == 3
    assert sum(numbers["train/loss"][-5:]) < 0.9 * sum(numbers["train/loss"][:5])
    for key in learned:
        assert len(set(numbers[key])) == STEPS // INTERVAL, key
