"""The bench's judgement of goals, and what its parts count; that what they time is the same work. Nothing is timed."""

from __future__ import annotations

import subprocess
import sys

import pytest
import torch

from benchmarks.__main__ import PARTS, Row
from benchmarks.drawing import drawn_afresh, graph_ratio
from benchmarks.in_turns import median
from benchmarks.messages import SIZES, fitted, seconds, sizes
from benchmarks.population import difference
from benchmarks.rho_step import parts
from crossreg.regularizers.noise import Noise


@pytest.mark.parametrize(
    ("row", "verdict"),
    [
        (Row("x", 1.0), ""),
        (Row("x", 1.10, 1.12), "met"),
        (Row("x", 1.14, 1.12), "not met"),  # within what a measurement may be off
        (Row("x", 1.20, 1.12), "lost"),
        (Row("x", 1.20, 1.12, met=False), "not met"),
        (Row("x", 0.98, 0.97, least=True), "met"),
        (Row("x", 0.95, 0.97, least=True), "not met"),
        (Row("x", 0.90, 0.97, least=True), "lost"),
        (Row("x", 0.90, 0.97, least=True, error=0.05), "not met"),  # the same where slices differ by as much
        (Row("x", 0.89, 0.97, least=True, error=0.05), "lost"),
    ],
)
def test_a_goal_that_was_met_can_be_lost(row: Row, verdict: str) -> None:
    assert row.verdict == verdict
    assert str(row).count("|") == 5


def test_a_median_of_few_that_differ_is_off_by_more_than_one_of_many() -> None:
    few, many = [0.9, 0.95, 1.0, 1.05, 1.1], [0.9, 0.95, 1.0, 1.05, 1.1] * 16
    assert median(few)[0] == median(many)[0] == 1.0
    assert median(many)[1] < median(few)[1] / 3
    assert median([1.0] * 5) == (1.0, 0.0)
    torch.manual_seed(0)
    found = [median(draws) for draws in torch.randn(1000, 21).mul(0.05).add(1).tolist()]
    assert 0.9 < sum(abs(middle - 1) < error * middle for middle, error in found) / len(found) < 1


def test_an_unknown_part_is_refused() -> None:
    command = [sys.executable, "-m", "benchmarks", "speed"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert all(name in done.stderr for name in PARTS)


def test_what_is_timed_runs_and_the_floor_leaves_the_model_alone() -> None:
    timed = parts("mlp", 8, 3, torch.device("cpu"))
    assert list(timed)[:4] == ["plain step", "noisy step", "noisy step, drawn", "rho step"]
    for run in timed.values():
        run()


def test_numbers_are_drawn_for_a_while_and_read_again_afterwards() -> None:
    noise = Noise((), None, "additive", 1.0)
    x = torch.zeros(50)
    torch.manual_seed(0)
    read = noise(x)
    with drawn_afresh():
        torch.manual_seed(0)
        expected = torch.randn(50)
        torch.manual_seed(0)
        torch.testing.assert_close(noise(x), expected)
    torch.manual_seed(0)
    assert torch.equal(noise(x), read)


def test_a_draw_keeps_less_than_a_training_step_that_keeps_inputs_for_its_weights() -> None:
    assert 0 < graph_ratio("mlp") < 1


def test_members_come_to_the_same_weights_by_either_way() -> None:
    assert difference("mlp", (8,), {"hidden": 16, "depth": 2}) < 1e-9


def test_bytes_are_those_of_what_is_sent() -> None:
    found = sizes("mlp")
    assert found["gradient"] == 4 * (784 * 512 + 2 * 512 * 512 + 512 * 10 + 3 * 2 * 512 + 10)
    # the loss, three sigmas and a temperature, what ranks are weighted by, and the rows
    assert found["rho"] == 4 * (1 + 3 + 1 + 2)
    assert found["metrics with rho"] > found["metrics"]


def test_the_model_of_an_all_reduce() -> None:
    latency, bandwidth = fitted([1e-4 + size / 1e9 for size in SIZES])
    assert latency == pytest.approx(1e-4, rel=0.01)
    assert bandwidth == pytest.approx(1e9, rel=0.01)
    # two processes: each sends its half, and then the half that it summed
    assert seconds(2, 1e9, 0.0, 1e9) == pytest.approx(1.0)
    assert seconds(1000, 1e9, 0.0, 1e9) == pytest.approx(2 * 999 / 1000)
    # of a few bytes the steps of a tree are all that counts
    assert seconds(1024, 0.0, 1e-5, 1e9) == pytest.approx(20e-5)
