from __future__ import annotations

import math

import numpy as np
from scipy import stats

from crossreg.services.comparison.report import summarize
from tests.services.comparison.report.conftest import NAN, context, cost, outcome, runs, scores, sentence

BASE = [0.80, 0.82, 0.81]
ABOVE = [0.85, 0.875, 0.855]
NEAR = [0.81, 0.81, 0.81]


def lead(method: list[float], reference: list[float]) -> tuple[float, float, float]:
    """What the reference is ahead by in accuracy, and its interval, in points."""
    gap = 100 * (np.array(reference) - np.array(method))
    low, high = stats.t.interval(0.95, df=len(gap) - 1, loc=gap.mean(), scale=stats.sem(gap))
    return float(gap.mean()), float(low), float(high)


def test_a_win_names_amount_interval_and_compute() -> None:
    gain, low, high = lead(BASE, ABOVE)
    said = sentence(runs("crossreg", ABOVE) + runs("none", BASE, cost=cost(7e11)))
    assert said.startswith(
        f"Against none (0.700 times the compute of crossreg; 3 seeds): crossreg wins on accuracy by {gain:.2f} points "
        f"(95 % interval {low:.2f} to {high:.2f}, excludes zero), on NLL by {gain / 100:.3f} "
    )
    assert "loses" not in said
    assert "no difference" not in said


def test_a_loss_is_said_as_plainly() -> None:
    gain, low, high = lead(BASE, ABOVE)
    said = sentence(runs("crossreg", BASE) + runs("pbt", ABOVE, "full", cost=cost(8e12)))
    assert said.startswith(
        f"Against pbt (8.00 times the compute of crossreg; 3 seeds): crossreg loses on accuracy by {gain:.2f} points "
        f"(95 % interval {low:.2f} to {high:.2f}, excludes zero), on NLL by {gain / 100:.3f} "
    )
    assert "wins" not in said


def test_an_interval_with_zero_says_that_no_difference_can_be_told() -> None:
    crossreg = [0.80, 0.82, 0.82]
    gain, low, high = lead(NEAR, crossreg)
    said = sentence(runs("crossreg", crossreg) + runs("none", NEAR))
    assert (
        f"no difference can be told from 3 seeds on accuracy (crossreg better by {gain:.2f} points on average, 95 % "
        f"interval of the lead {low:.2f} to {high:.2f}, includes zero)".replace("-", "−")
        in said
    )
    assert "wins" not in said
    assert "loses" not in said


def test_equal_means_are_neither_better_nor_worse() -> None:
    said = sentence(runs("crossreg", [0.5, 0.75, 0.5]) + runs("none", [0.75, 0.5, 0.5]))
    assert "on accuracy (equal on average," in said


def test_one_seed_has_no_interval() -> None:
    said = sentence(runs("crossreg", [0.80]) + runs("none", [0.82]))
    assert said == (
        "Against none (1.00 times the compute of crossreg; one seed: no interval): crossreg is worse on accuracy by "
        "2.00 points, worse on NLL by 0.020 and worse on ECE by 0.020. After temperature scaling of both: crossreg is "
        "worse on NLL by 0.020 and worse on ECE by 0.020."
    )


def test_losing_raw_and_winning_after_scaling_is_said() -> None:
    def with_nll(method: str, raw: float, scaled: float) -> list:
        wobble = (-0.001, 0.0, 0.001) if method == "crossreg" else (0.0, 0.0, 0.0)
        return [
            outcome(method, seed=seed, test=scores(nll=raw + w), test_scaled=scores(nll=scaled + w))
            for seed, w in enumerate(wobble)
        ]

    said = sentence(with_nll("crossreg", 0.7, 0.4) + with_nll("none", 0.6, 0.5))
    raw, scaled = said.split("After temperature scaling of both: ")
    assert "crossreg loses on NLL by 0.100" in raw
    assert "crossreg wins on NLL by 0.100" in scaled


def test_a_method_without_a_split_to_scale_on_is_named() -> None:
    mine, other = runs("crossreg", BASE), runs("none-all-data", ABOVE)
    other = [each.model_copy(update={"test_scaled": {}, "temperature": math.nan}) for each in other]
    expected = "Temperature scaling cannot be compared: none-all-data has kept no split to fit a temperature on."
    assert expected in sentence(mine + other)


def test_a_regression_speaks_of_its_own_scores_and_of_no_temperature() -> None:
    def regression(method: str, shift: float) -> list:
        return [
            outcome(method, seed=s, test={"nll": shift + 0.01 * s, "rmse": 2.0 + 0.1 * s}, test_scaled={})
            for s in range(3)
        ]

    said = sentence(regression("crossreg", 1.0) + regression("none", 2.0))
    assert "crossreg wins on NLL by 1.000" in said
    assert "on RMSE (equal on average" in said
    assert "emperature" not in said
    assert "accuracy" not in said


def test_divergence_is_said_and_leaves_the_other_seeds() -> None:
    other = runs("fixed", ABOVE)
    other[1] = outcome("fixed", seed=1, test=NAN, test_scaled={})
    said = sentence(runs("crossreg", BASE) + other)
    assert "(1.00 times the compute of crossreg; two seeds: no interval)" in said
    assert said.endswith("fixed diverged on 1 of 3 seeds (1), which no mean or difference of scores includes.")
    gone = [outcome("fixed", seed=seed, test=NAN, test_scaled={}) for seed in range(3)]
    said = sentence(runs("crossreg", BASE) + gone)
    assert said == "Against fixed: nothing can be said. fixed diverged on every seed (0, 1 and 2) and has no scores."


def test_no_shared_seed_is_said() -> None:
    said = sentence([outcome(seed=0), outcome("none", seed=1)])
    assert said == "Against none: nothing can be said. They share no seed."


def test_compute_that_cannot_be_counted_is_unknown() -> None:
    said = sentence(runs("crossreg", BASE) + runs("none", ABOVE, cost=cost(math.nan)))
    assert said.startswith("Against none (unknown compute; 3 seeds)")


def test_an_interval_that_excludes_zero_does_not_look_as_if_it_ended_there() -> None:
    gaps = [0.1, 0.11, 0.12]
    half = stats.t.ppf(0.975, 2) * stats.sem(gaps)
    shift = half - 0.11 + 0.00002  # the lower end of the differences is 0.00002
    crossreg = [outcome(seed=s, test={"nll": 1.0}, test_scaled={}) for s in range(3)]
    other = [outcome("none", seed=s, test={"nll": 1.0 + gap + shift}, test_scaled={}) for s, gap in enumerate(gaps)]
    assert "(95 % interval 0.00002 to " in sentence(crossreg + other)


def test_losses_are_listed_by_method() -> None:
    gain, low, high = lead(BASE, ABOVE)
    outcomes = runs("crossreg", BASE) + runs("none", [0.7, 0.72, 0.71]) + runs("pbt", ABOVE, "full", cost=cost(8e12))
    lines = summarize(outcomes, context()).losses
    assert len(lines) == 1
    assert lines[0].startswith(
        f"Against pbt (8.00 times the compute of crossreg): accuracy by {gain:.2f} points "
        f"(95 % interval {low:.2f} to {high:.2f}), NLL by"
    )
    assert "NLL after temperature scaling by" in lines[0]


def test_losing_nowhere_is_said_and_being_behind_undecided_too() -> None:
    assert summarize(runs("crossreg", ABOVE) + runs("none", BASE), context()).losses == ["In nothing measured here."]
    lines = summarize(runs("crossreg", [0.80, 0.82, 0.80]) + runs("none", NEAR), context()).losses
    assert lines[0] == "In nothing that can be told from zero."
    assert lines[1].startswith(
        "Behind on average, without an interval that excludes zero: against none in accuracy (0.33 points), NLL (0.003)"
    )
    assert len(lines) == 2


def test_a_cheaper_method_that_is_not_worse_counts_as_a_loss() -> None:
    crossreg = [0.80, 0.82, 0.82]
    lines = summarize(runs("crossreg", crossreg) + runs("none", NEAR, cost=cost(5e11)), context()).losses
    assert lines == ["Compute: none used 0.500 times as much, and nothing tells it to be worse."]
    lines = summarize(runs("crossreg", ABOVE) + runs("none", BASE, cost=cost(5e11)), context()).losses
    assert lines == ["In nothing measured here."]


def test_the_references_own_divergence_is_a_loss() -> None:
    mine = runs("crossreg", ABOVE)
    mine[2] = outcome(seed=2, test=NAN, test_scaled={})
    found = summarize(mine + runs("none", BASE), context())
    assert found.losses[0].startswith("Divergence: crossreg diverged on 1 of 3 seeds (2)")
    assert any(note.startswith("crossreg diverged on 1 of 3 seeds (2)") for note in found.notes)


def test_how_to_read_says_what_the_budgets_are() -> None:
    said = summarize([outcome()], context(population=6, samples=16, unit="examples", select_on="accuracy")).how_to_read
    for part in ("compute of one crossreg run, counted in examples", "“full” is 6 times that", "averages 16 draws"):
        assert part in said
    assert "choose by accuracy on the regularization split" in said


def test_the_verdict_counts_whom_the_reference_beats_after_scaling() -> None:
    outcomes = (
        runs("crossreg", ABOVE) + runs("none", BASE) + runs("pbt", [a + 0.05 for a in ABOVE]) + runs("grid", NEAR)
    )
    found = summarize(outcomes, context())
    assert found.verdict == (
        "crossreg, at one run's compute: on accuracy it wins against none and grid and loses against pbt; on NLL after "
        "temperature scaling it wins against none and grid and loses against pbt."
    )
    assert summarize(runs("crossreg", [0.8]) + runs("none", [0.7]), context()).verdict == (
        "Too few seeds for a verdict: one seed."
    )
    assert summarize(runs("crossreg", [0.8]), context()).verdict == ""
