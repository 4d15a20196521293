from __future__ import annotations

import math
from dataclasses import replace
from typing import Any

import pytest

from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.report import summarize
from crossreg.services.comparison.report.compute_to_target import ComputeToTarget
from crossreg.services.comparison.report.tables import tables
from crossreg.services.data import load_data
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import resolve
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


def found(outcomes: list[Outcome], **changes: Any) -> ComputeToTarget:
    target = summarize(outcomes, context(**changes)).rows[-1].compute_to_target
    assert target is not None
    return target


def test_it_counts_from_where_on_the_run_stays_as_good() -> None:
    """A curve that touches the target and leaves it again has not reached it then."""
    run = crossreg(0, [0.9, 0.5, 0.3, 0.4, 0.2])
    assert found([run, pbt(0, 0.35)]).fractions == pytest.approx({0: 5e11 / 8e12})
    assert found([run, pbt(0, 0.5)]).fractions == pytest.approx({0: 2e11 / 8e12})  # equal is enough
    assert found([run, pbt(0, 0.1)]).never == [0]
    ends_worse = crossreg(0, [0.9, 0.2, 0.4])
    assert found([ends_worse, pbt(0, 0.3)]).never == [0]


def test_the_test_split_decides_nothing_and_is_told_as_it_was_then() -> None:
    run = crossreg(0, [0.9, 0.3])
    lucky = run.curve[0].model_copy(update={"test": scores(accuracy=1.0, nll=0.0)})
    run.curve[0] = lucky
    target = found([run, pbt(0, 0.35)])
    assert target.fractions == pytest.approx({0: 2e11 / 8e12})
    assert target.behind == pytest.approx({"accuracy": -0.05, "nll": -0.1})  # accuracy .70 against .65, NLL .6 and .7


def test_the_unit_and_the_score_are_the_comparisons() -> None:
    run, search = crossreg(0, [0.9, 0.1]), pbt(0, 0.5)
    run.curve[1] = run.curve[1].model_copy(update={"cost": replace(cost(2e11), worker_seconds=60.0)})
    assert found([run, search], unit="worker_seconds").mean == pytest.approx(60 / 80)
    assert found([run, search]).mean == pytest.approx(2 / 80)
    curve = [point(1e11, scores(accuracy=0.5), scores()), point(2e11, scores(accuracy=0.9), scores())]
    by_accuracy = outcome(curve=curve, cost=cost(2e11))
    chosen = outcome("pbt", "full", reg=scores(accuracy=0.8), **SEARCH)
    assert found([by_accuracy, chosen], select_on="accuracy").fractions == pytest.approx({0: 2e11 / 8e12})


def test_the_mean_is_over_the_seeds_that_reached_it_and_never_is_an_answer() -> None:
    outcomes = [crossreg(0, [0.5, 0.2]), crossreg(1, [0.5, 0.5, 0.5, 0.2]), crossreg(2, [0.5, 0.5])]
    target = found(outcomes + [pbt(seed, 0.3) for seed in range(3)])
    assert target.fractions == pytest.approx({0: 2e11 / 8e12, 1: 4e11 / 8e12})
    assert (target.never, target.num_seeds) == ([2], 3)
    assert target.mean == pytest.approx(3e11 / 8e12)


def test_a_search_that_diverged_sets_no_goal_and_a_reference_that_diverged_reaches_none() -> None:
    lost = outcome("pbt", "full", 1, reg=NAN, test=NAN, **SEARCH)
    broken = outcome(seed=0, test=NAN, curve=[point(1e11, NAN, NAN)])
    target = found([broken, crossreg(1, [0.1]), pbt(0, 0.3), lost])
    assert (target.never, target.num_seeds) == ([0], 1)
    assert math.isnan(target.mean)


def test_single_runs_are_no_searches() -> None:
    row = summarize([crossreg(0, [0.1]), outcome("none")], context()).rows[-1]
    assert (row.method, row.compute_to_target) == ("none", None)


def test_the_sentence_and_the_table_say_how_many_seeds_reached_it() -> None:
    outcomes = [crossreg(0, [0.5, 0.2]), crossreg(1, [0.5, 0.5]), pbt(0, 0.3), pbt(1, 0.3)]
    (said,) = summarize(outcomes, context()).sentences
    assert said.endswith(
        "By NLL on the regularization split crossreg was as good as pbt, and stayed so, after 0.0250 of the compute of "
        "pbt (1 of 2 seeds), and was then better by 10.00 points on test accuracy and better by 0.200 on test NLL."
    )
    late = summarize([crossreg(0, [0.5]), pbt(0, 0.3)], context())
    assert (
        "crossreg never came to stay as good as pbt by NLL on the regularization split (0 of 1 seed)"
        in late.sentences[0]
    )
    (table,) = [table for table in tables(late) if table.title.startswith("Compute to target: what crossreg needed")]
    assert [(cell.text, cell.remark) for cell in table.rows[0][2:]] == [("never", "0 of 1 seed")]
    (table,) = [t for t in tables(summarize(outcomes, context())) if t.title.startswith("Compute to target")]
    assert [cell.text for cell in table.rows[0][2:]] == ["0.0250", "−10.00", "−0.200"]


def test_a_run_whose_held_out_scores_are_scaled_is_compared_with_scaled_ones() -> None:
    config = TrainConfig.model_validate({"data": {"name": "digits"}, "model": "mlp"})
    run = crossreg(0, [0.9, 0.3]).model_copy(update={"config": resolve(config, load_data(config.data))})
    search = pbt(0, 0.35).model_copy(update={"reg_scaled": scores(nll=0.25)})
    assert found([run, search]).never == [0]
    assert found([crossreg(0, [0.9, 0.3]), search]).fractions == pytest.approx({0: 2e11 / 8e12})
