from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.training.evidence import evidence
from crossreg.services.training.tuning import TUNED, draw, training_changes
from crossreg.studies.run import _solve
from crossreg.studies.sensitivity.study import Learned, Sensitivity
from crossreg.studies.zero_flag.evidence import evidence_of
from crossreg.studies.zero_flag.pairs import PAIRS, prepare
from crossreg.studies.zero_flag.study import ZeroFlag
from crossreg.studies.zero_flag.summed import summed


def row(method: str, seed: int = 0, pair: str = "made-up", **scores: Any) -> dict[str, Any]:
    return {"pair": pair, "seed": seed, "untouched": False, "method": method, "flops": 1.0, **scores}


def rows(lead: float, nll_lead: float, seeds: int = 3) -> list[dict[str, Any]]:
    """A pair whose zero-flag run leads by so many points and nats; trial 1 is the one to choose."""
    found = []
    for seed in range(seeds):
        found += [
            row("zero flag", seed, accuracy=0.8 + lead / 100, nll=0.5 - nll_lead),
            row("trial", seed, trial=0, accuracy=0.9, nll=0.1, held_out=0.6),
            row("trial", seed, trial=1, accuracy=0.8, nll=0.5, held_out=0.5),
            row("refitted", seed, trial=1, accuracy=0.81, nll=0.49),
            row("logistic regression", seed, accuracy=0.7, nll=0.9),
        ]
    return found


@pytest.mark.parametrize(
    ("lead", "nll_lead", "won"), [(0.6, 0.01, True), (-0.4, 0.0, True), (-0.6, 0.1, False), (2.0, -0.001, False)]
)
def test_a_pair_is_won_where_neither_score_is_behind(lead: float, nll_lead: float, won: bool) -> None:
    (one,) = summed(rows(lead, nll_lead))
    assert one.won == won
    assert one.lead == pytest.approx(lead)
    assert one.nll_lead == pytest.approx(nll_lead, abs=1e-12)
    assert one.compute == 0.5


def test_a_regression_may_be_one_percent_behind() -> None:
    def pair(rmse: float) -> list[dict[str, Any]]:
        found = [row("zero flag", rmse=rmse), row("trial", trial=0, rmse=1.0, held_out=1.0)]
        return [*found, row("refitted", trial=0, rmse=1.0)]

    assert summed(pair(1.009))[0].won
    assert not summed(pair(1.011))[0].won


def test_losses_come_first_and_are_named() -> None:
    study = ZeroFlag()
    both = rows(1.0, 0.1) + [{**one, "pair": "lost", "untouched": True} for one in rows(-3.0, 0.1)]
    table = study.table(both)
    assert [one["pair"] for one in table] == ["lost *", "made-up"]
    assert [one["verdict"] for one in table] == ["lost", "won"]
    assert table[0]["search"] == "80.0 / 0.500"
    assert table[0]["simple"] == "70.0 / 0.900 (logistic regression)"
    said = " ".join(study.findings(both))
    assert "all pairs: won 1 of 2" in said
    assert "the untouched pairs (*): won 0 of 1" in said
    assert "lost: lost" in said
    assert "refitted on all data: won 1 of 2" in said
    assert study.numbers(both)["won"] == 1
    assert len(study.figure(both).axes) == 2


def test_draws_are_the_default_first_then_within_the_published_ranges() -> None:
    first = draw("a", 0, 0)
    assert first == {one.name: one.default for one in TUNED} | {"label_smoothing": 0.0}
    draws = [draw("a", seed, index) for seed in range(10) for index in range(1, 16)]
    for one in TUNED:
        values = np.array([values[one.name] for values in draws])
        on = values[values > 0]
        assert one.range[0] <= on.min()
        assert on.max() <= one.range[1]
        assert (values == 0).mean() == pytest.approx(0.5 if one.name in ("dropout", "noise") else 0, abs=0.12)
    assert draw("a", 0, 1) == draw("a", 0, 1)
    assert draw("a", 0, 1) != draw("b", 0, 1) != draw("b", 1, 1)


def test_a_trial_is_trained_with_what_was_drawn_and_nothing_else() -> None:
    values = {"learning_rate": 0.002, "length": 0.5, "weight_decay": 0.3, "dropout": 0.0, "noise": 0.7,
              "label_smoothing": 0.1}  # fmt: skip
    changes = training_changes(values, classification=True)
    assert changes["optimizer"] == {"lr": 0.002, "schedule": "cosine"}
    assert {name: one["value"] for name, one in changes["regularizers"].items()} == {
        "weight_decay": 0.3, "noise": 0.7, "label_smoothing": 0.1,
    }  # fmt: skip
    assert "label_smoothing" not in training_changes(values, classification=False)["regularizers"]


@pytest.mark.parametrize("name", ["digits-mlp", "diabetes", "breast-cancer"])
def test_pairs_are_files_that_anybody_could_train_on(name: str, tmp_path: Path) -> None:
    pair, nowhere = PAIRS[name], DataConfig(name="pairs", root=tmp_path)
    prepare(pair, tmp_path, nowhere)
    before = pair.file(tmp_path).stat().st_mtime_ns
    prepare(pair, tmp_path, nowhere)
    assert pair.file(tmp_path).stat().st_mtime_ns == before
    data = load_data(pair.config(tmp_path, 0))
    assert len(data.test) > 100
    assert data.fingerprint != load_data(pair.config(tmp_path, 1)).fingerprint


def test_a_pair_that_there_is_not_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="did you mean 'diabetes'"):
        ZeroFlag(only=["diabets"])


def test_data_that_are_not_there_are_asked_for(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="--download"):
        prepare(PAIRS["fashion-mlp"], tmp_path, DataConfig(name="pairs", root=tmp_path))


@pytest.mark.slow
@pytest.mark.thorough
def test_a_pair_is_run_searched_and_not_run_again(tmp_path: Path) -> None:
    study = ZeroFlag(DataConfig(name="pairs", root=tmp_path), ["diabetes"])
    study.prepare()
    cases = study.cases(1)
    found = _solve(study, cases, 2, lambda done, total: None, tmp_path / "cases")
    assert [one["method"] for one in found[:2]] == ["zero flag", "trial"]
    assert sum(one["method"] == "trial" for one in found) == 16
    (one,) = summed(found)
    assert one.regression
    assert 0.02 < one.compute < 0.3
    assert set(one.scores) >= {"zero flag", "search", "refitted", "default", "ridge regression", "gradient boosting"}
    kept = sorted((tmp_path / "cases").glob("*.json"))
    assert [path.name for path in kept] == ["run-diabetes-0.json", "search-diabetes-0.json"]
    changed = json.loads(kept[0].read_text())
    changed[0]["rmse"] = 0.123
    kept[0].write_text(json.dumps(changed))
    again = _solve(study, cases, 2, lambda done, total: None, tmp_path / "cases")
    assert again[0]["rmse"] == 0.123
    assert again[1:] == found[1:]


def test_what_the_product_says_of_the_study_is_what_was_measured() -> None:
    measured = Path(__file__).parents[2] / "docs" / "results" / "zero-flag" / "rows.json"
    assert evidence() == evidence_of(json.loads(measured.read_text()))


@pytest.mark.parametrize("kind", [Sensitivity, Learned])
def test_every_variant_has_a_name_that_its_numbers_can_be_recorded_under(
    kind: type[Sensitivity], tmp_path: Path
) -> None:
    measured = [
        {"variant": variant, "pair": "digits-mlp", "seed": 0, "accuracy": 0.9, "nll": 0.1, "flops": 1.0}
        for variant in ("as it is", *kind.variants)
    ]
    numbers = kind().numbers(measured)
    assert len(numbers) == 3 * len(kind.variants)
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    tracker = Tracker.start(
        tracking, experiment="e", run_name="r", params={}, tags={}, spool_dir=tmp_path / "spool", system_interval=None
    )
    tracker.record(numbers, 0)
    assert tracker.finish("FINISHED")
