from __future__ import annotations

import io
import json
import math
from dataclasses import replace

import pytest
from rich.console import Console

from crossreg.core.errors import UserError
from crossreg.services.comparison.report import Summary, summarize
from crossreg.services.comparison.report.rows import Row
from crossreg.services.comparison.report.tables import tables
from tests.services.comparison.report.conftest import NAN, context, cost, outcome, runs, scores


def row(summary: Summary, label: str) -> Row:
    return next(row for row in summary.rows if row.label == label)


def test_a_row_is_a_method_and_a_budget() -> None:
    outcomes = [
        *runs("crossreg", [0.8, 0.9]),
        *runs("pbt", [0.7], "full"),
        *runs("none", [0.6]),
        *runs("pbt", [0.5], "matched"),
        *runs("pbt", [0.4], "2.5"),
        *runs("crossreg-refit", [0.8], "2"),
    ]
    labels = [row.label for row in summarize(outcomes, context()).rows]
    assert labels == ["crossreg", "pbt (full)", "pbt (matched)", "pbt (2.5×)", "none", "crossreg-refit"]


def test_the_reference_is_the_matched_one_of_several() -> None:
    found = summarize(runs("pbt", [0.7], "full") + runs("pbt", [0.6], "matched"), context(reference="pbt"))
    assert found.reference is not None
    assert found.reference.budget == "matched"
    assert row(found, "pbt (full)").differences["accuracy"].mean == pytest.approx(0.1)


def test_means_are_over_seeds() -> None:
    outcomes = [
        outcome(seed=s, test=scores(a), cost=cost(f), trials=t, seconds=10.0 * t, peak_memory_bytes=m)
        for s, (a, f, t, m) in enumerate([(0.8, 1e12, 1, 100), (0.9, 2e12, 3, 300), (0.85, 3e12, 2, 200)])
    ]
    found = summarize(outcomes[::-1], context()).rows[0]
    assert found.seeds == [0, 1, 2]
    assert found.scores["accuracy"].mean == pytest.approx(0.85)
    assert found.compute.mean == pytest.approx(2e12)
    assert (found.trials, found.seconds, found.worker_seconds) == pytest.approx((2, 20, 20))
    assert found.peak_memory_bytes == 300
    assert found.compute_ratio == 1


def test_the_compute_ratio_is_over_shared_seeds_in_the_comparisons_unit() -> None:
    outcomes = [
        outcome(seed=0, cost=cost(1e12)),
        outcome(seed=1, cost=cost(3e12)),
        outcome("pbt", "full", 0, cost=cost(6e12)),
        outcome("pbt", "full", 1, cost=cost(10e12)),
        outcome("pbt", "full", 2, cost=cost(99e12)),
    ]
    assert row(summarize(outcomes, context()), "pbt").compute_ratio == pytest.approx(16 / 4)
    slow = [each.model_copy(update={"cost": each.cost * 1}) for each in outcomes]
    slow[0].cost = replace(cost(1e12), worker_seconds=130.0)
    found = summarize(slow, context(unit="worker_seconds"))
    assert row(found, "pbt").compute_ratio == pytest.approx(160 / 160)


def test_seeds_that_diverged_are_in_no_score_but_in_all_of_compute() -> None:
    outcomes = [
        outcome("fixed", seed=0, test=scores(0.8), cost=cost(1e12)),
        outcome("fixed", seed=1, test=NAN, test_scaled={}, temperature=math.nan, cost=cost(3e12)),
    ]
    found = summarize(outcomes, context())
    assert found.rows[0].diverged == [1]
    assert found.rows[0].scores["accuracy"].values == {0: 0.8}
    assert found.rows[0].compute.mean == 2e12
    assert any("fixed diverged on 1 of 2 seeds (1)" in note for note in found.notes)


def test_a_seed_with_one_score_that_is_no_number_has_none() -> None:
    found = summarize([outcome(seed=0, test=scores(0.8)), outcome(seed=1, test=scores(0.1, math.nan))], context())
    assert found.rows[0].diverged == [1]
    assert found.rows[0].scores["accuracy"].values == {0: 0.8}


def test_a_method_without_temperature_scaling_shows_a_dash() -> None:
    found = summarize([outcome(), outcome("none-all-data", test_scaled={}, temperature=math.nan, reg={})], context())
    (table,) = [table for table in tables(found) if table.title.startswith("Scores")]
    cells = dict(zip(table.header, table.rows[1], strict=True))
    assert cells["NLL scaled"].text == cells["ECE scaled"].text == "–"
    assert cells["NLL"].text == "0.600"
    assert dict(zip(table.header, table.rows[0], strict=True))["NLL scaled"].text == "0.600"


def test_a_regression_shows_the_scores_that_it_has() -> None:
    found = summarize([outcome(test={"rmse": 1.5, "nll": -0.25}, test_scaled={})], context())
    assert found.scores == ["nll", "rmse"]
    assert tables(found)[0].header == ["method", "budget", "seeds", "NLL", "RMSE", "× compute"]
    assert [cell.text for cell in tables(found)[0].rows[0]] == ["crossreg", "matched", "1", "−0.250", "1.500", "1.00×"]


def test_without_the_reference_there_are_no_differences_and_it_says_so() -> None:
    found = summarize(runs("none", [0.8, 0.9]) + runs("pbt", [0.7, 0.8]), context())
    assert found.reference is None
    assert found.sentences == found.losses == []
    assert found.notes[0] == "crossreg was not run, so there are no paired differences to it."
    assert all(not row.differences and math.isnan(row.compute_ratio) for row in found.rows)
    assert [table.title for table in tables(found)] == ["Scores on the test split", "What it cost"]


def test_a_single_outcome_is_a_report() -> None:
    found = summarize([outcome()], context())
    assert found.sentences == []
    assert found.losses == ["There is nothing to compare with."]
    assert any(text.startswith("One seed: no intervals, and nothing here tells a difference") for text in found.notes)


def test_seeds_that_the_reference_lacks_are_noted() -> None:
    found = summarize(runs("crossreg", [0.8, 0.9]) + runs("none", [0.7, 0.8, 0.9]), context())
    assert "none is compared on the 2 of its seeds that crossreg has." in found.notes
    assert not any("no intervals" in text for text in found.notes)  # none has three seeds of its own
    two = summarize(runs("crossreg", [0.8, 0.9]) + runs("none", [0.7, 0.8]), context())
    assert any(text.startswith("Two seeds: no intervals") for text in two.notes)


def test_nothing_and_doubles_are_refused() -> None:
    with pytest.raises(UserError, match="nothing to report"):
        summarize([], context())
    with pytest.raises(UserError, match="two outcomes for method 'none', budget 'matched', seed 3"):
        summarize([outcome("none", seed=3), outcome("none", seed=3)], context())


def test_plain_data_are_json_without_what_json_lacks() -> None:
    outcomes = [
        outcome(test=NAN, test_scaled={}),
        *runs("none", [0.8, 0.9]),
        outcome("pbt", "full", cost=cost(math.nan)),
    ]
    facts = context(machine={"CPUs": 4, "memory": math.inf, "gpu": None}, data_fingerprints={0: "ab", 1: "cd"})
    plain = summarize(outcomes, facts).as_dict()
    assert json.loads(json.dumps(plain, allow_nan=False)) == plain
    crossreg, none, pbt = plain["rows"]
    assert crossreg["scores"]["accuracy"] == {"values": {}, "mean": None, "low": None, "high": None}
    assert crossreg["diverged"] == [0]
    assert none["scores"]["accuracy"]["values"] == {"0": 0.8, "1": 0.9}
    assert none["differences"]["accuracy"]["excludes_zero"] is None
    assert pbt["compute"]["mean"] is None
    assert plain["context"]["machine"] == {"CPUs": 4, "memory": None, "gpu": None}


def test_trials_that_failed_are_told() -> None:
    found = summarize([*runs("crossreg", [0.8, 0.9]), *runs("pbt", [0.8, 0.8], "full", trials=4, failed=1)], context())
    assert "Of the trials of pbt, 2 ended by an error, and lost." in found.notes


def test_the_table_for_a_terminal_shows_every_method() -> None:
    found = summarize(runs("crossreg", [0.8, 0.9]) + runs("[red]none", [0.7, 0.8]), context())
    console = Console(width=160, record=True, file=io.StringIO())
    console.print(found.as_table())
    text = console.export_text()
    assert "accuracy %" in text
    assert "[red]none" in text
    assert "85.00" in text
