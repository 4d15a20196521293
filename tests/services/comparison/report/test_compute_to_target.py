from __future__ import annotations

import math
from dataclasses import replace

import pytest

from services.comparison.outcome import Outcome
from services.comparison.report import summarize
from services.comparison.report.compute_to_target import ComputeToTarget, compute_to_target
from services.comparison.report.rows import Row
from services.comparison.report.tables import tables
from tests.services.comparison.report.conftest import NAN, context, cost, outcome, point, scores

SEARCH = {"cost": cost(8e12), "trials": 8, "members": [[(0, {"weight_decay": 0.1})]] * 8}


def crossreg(seed: int, nlls: list[float]) -> Outcome:
    """A run of ten intervals of 1e11 FLOPs, with NLL on reg, twice that on test, and accuracy 1 - NLL."""
    curve = [
        point(1e11 * (i + 1), scores(nll=nll), scores(accuracy=1 - nll, nll=2 * nll)) for i, nll in enumerate(nlls)
    ]
    return outcome(seed=seed, cost=cost(1e11 * len(nlls)), curve=curve)


def pbt(seed: int, nll: float) -> Outcome:
    return outcome("pbt", "full", seed, reg=scores(nll=nll), test=scores(accuracy=1 - nll, nll=2 * nll), **SEARCH)


def targets_of(outcomes: list[Outcome]) -> tuple[Row, dict[str, ComputeToTarget]]:
    row = summarize(outcomes, context()).rows[-1]
    return row, {f"{found.split}/{found.score}": found for found in row.compute_to_target}


def test_the_first_point_that_is_as_good_counts_against_all_of_the_searchs_compute() -> None:
    run = crossreg(0, [0.9, 0.5, 0.3, 0.4, 0.2])
    assert compute_to_target(run, pbt(0, 0.35), "reg", "nll", "flops") == pytest.approx(3e11 / 8e12)
    assert compute_to_target(run, pbt(0, 0.5), "reg", "nll", "flops") == pytest.approx(2e11 / 8e12)  # equal is enough
    assert compute_to_target(run, pbt(0, 0.35), "test", "accuracy", "flops") == pytest.approx(3e11 / 8e12)
    assert compute_to_target(run, pbt(0, 0.1), "test", "nll", "flops") == math.inf
    assert math.isnan(compute_to_target(run, outcome("pbt", reg={}), "reg", "nll", "flops"))


def test_the_unit_is_the_comparisons() -> None:
    run, search = crossreg(0, [0.9, 0.1]), pbt(0, 0.5)
    run.curve[1] = run.curve[1].model_copy(update={"cost": replace(cost(2e11), worker_seconds=60.0)})
    assert compute_to_target(run, search, "reg", "nll", "worker_seconds") == pytest.approx(60 / 80)
    assert compute_to_target(run, search, "reg", "nll", "flops") == pytest.approx(2 / 80)


def test_the_mean_is_over_the_seeds_that_reached_it_and_never_is_an_answer() -> None:
    outcomes = [crossreg(0, [0.5, 0.2]), crossreg(1, [0.5, 0.5, 0.5, 0.2]), crossreg(2, [0.5, 0.5])]
    _, targets = targets_of(outcomes + [pbt(seed, 0.3) for seed in range(3)])
    assert list(targets) == ["reg/nll", "test/accuracy", "test/nll"]
    for found in targets.values():
        assert found.fractions == pytest.approx({0: 2e11 / 8e12, 1: 4e11 / 8e12})
        assert found.never == [2]
        assert found.num_seeds == 3
        assert found.mean == pytest.approx(3e11 / 8e12)


def test_a_search_that_diverged_sets_no_goal_and_a_reference_that_diverged_reaches_none() -> None:
    lost = outcome("pbt", "full", 1, reg=NAN, test=NAN, **SEARCH)
    broken = outcome(seed=0, test=NAN, curve=[point(1e11, NAN, NAN)])
    _, targets = targets_of([broken, crossreg(1, [0.1]), pbt(0, 0.3), lost])
    assert (targets["reg/nll"].never, targets["reg/nll"].num_seeds) == ([0], 1)
    assert math.isnan(targets["reg/nll"].mean)


def test_single_runs_are_no_searches() -> None:
    row, targets = targets_of([crossreg(0, [0.1]), outcome("none")])
    assert row.method == "none"
    assert targets == {}


def test_the_sentence_and_the_table_say_how_many_seeds_reached_it() -> None:
    outcomes = [crossreg(0, [0.5, 0.2]), crossreg(1, [0.5, 0.5]), pbt(0, 0.3), pbt(1, 0.3)]
    (said,) = summarize(outcomes, context()).sentences
    assert said.endswith(
        "To be as good as pbt at its end, crossreg needed this fraction of the compute of pbt: reg NLL 0.0250 (1 of 2 "
        "seeds); test accuracy 0.0250 (1 of 2 seeds); test NLL 0.0250 (1 of 2 seeds)."
    )
    found = summarize([crossreg(0, [0.5]), pbt(0, 0.3)], context())
    assert "reg NLL never (0 of 1 seed)" in found.sentences[0]
    (table,) = [table for table in tables(found) if table.title.startswith("Compute to target: what crossreg needed")]
    assert [(cell.text, cell.remark) for cell in table.rows[0][2:]] == [("never", "0 of 1 seed")] * 3
