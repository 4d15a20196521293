from __future__ import annotations

import json
import math

import pytest

from crossreg import Cost
from jobs.train import as_dict, show
from services.training.driver import FinishedTraining


def report(nll: float) -> FinishedTraining:
    return FinishedTraining(
        run_id="abc",
        test={"accuracy": 0.5, "nll": nll, "brier": 0.7, "ece": 0.1},
        test_scaled={},
        regularizers={"noise/00_norm1": 0.25, "weight_decay": 0.01},
        learned=["noise/00_norm1"],
        cost=Cost(examples=10.0, flops=math.nan, worker_seconds=2.0),
        checkpoint="runs/x/checkpoint.pt",
        model_uri=None,
        ui_command="crossreg ui",
        url=None,
        diagnoses=[],
    )


def test_json_has_no_nan_and_keeps_the_agreed_keys() -> None:
    text = json.dumps(as_dict(report(math.nan)), allow_nan=False)
    plain = json.loads(text)
    assert {"run_id", "test", "regularizers", "learned", "cost", "checkpoint", "model_uri"} <= set(plain)
    assert plain["test"]["nll"] is None
    assert plain["cost"] == {"examples": 10.0, "backward_examples": 0.0, "flops": None, "worker_seconds": 2.0}
    assert plain["regularizers"] == {"noise/00_norm1": 0.25, "weight_decay": 0.01}


def test_table_shows_scores_what_was_learned_and_how_to_open_the_ui(
    capfd: pytest.CaptureFixture[str],
) -> None:
    show(report(1.25))
    out, err = capfd.readouterr()
    assert out == ""
    for words in ("1.2500", "learned: noise/00_norm1 0.25\n", "not logged", "crossreg ui"):
        assert words in err


def test_a_simple_model_that_is_better_and_the_unit_of_the_rmse_are_said(capfd: pytest.CaptureFixture[str]) -> None:
    better = {"logistic regression": {"accuracy": 0.6, "nll": 1.0, "brier": 0.6, "ece": 0.1}}
    show(report(1.25).model_copy(update={"simple": better}))
    said = capfd.readouterr().err
    assert "warning: logistic regression, trained on the same splits, is better than this network" in said
    worse = {"logistic regression": {"accuracy": 0.4, "nll": 1.0, "brier": 0.6, "ece": 0.1}}
    show(report(1.25).model_copy(update={"simple": worse}))
    assert "warning" not in capfd.readouterr().err
    show(report(1.25).model_copy(update={"test": {"rmse": 0.5, "nll": 1.0}, "target_std": [80.0]}))
    assert "RMSE is in standard deviations of the target (80): in its own unit it is 40" in capfd.readouterr().err
