from __future__ import annotations

import json
import math

import pytest

from crossreg import Cost
from crossreg.jobs.train import as_dict, show
from crossreg.services.training.driver import FinishedTraining


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
        explanation=["One network gets half of it right.", "Length: as given."],
    )


def test_json_has_no_nan_and_keeps_the_agreed_keys() -> None:
    text = json.dumps(as_dict(report(math.nan)), allow_nan=False)
    plain = json.loads(text)
    assert {"run_id", "test", "regularizers", "learned", "cost", "checkpoint", "model_uri"} <= set(plain)
    assert plain["test"]["nll"] is None
    assert plain["cost"] == {"examples": 10.0, "backward_examples": 0.0, "flops": None, "worker_seconds": 2.0}
    assert plain["regularizers"] == {"noise/00_norm1": 0.25, "weight_decay": 0.01}


def test_an_rmse_is_shown_in_the_unit_of_the_target(capfd: pytest.CaptureFixture[str]) -> None:
    changes = {
        "test": {"rmse": 0.5, "nll": 1.0},
        "simple": {"ridge regression": {"rmse": 1.0}},
        "target_std": [77.125],
        "target": "progression",
    }
    show(report(1.0).model_copy(update=changes))
    out = capfd.readouterr().out
    assert "38.56" in out
    assert "77.12" in out
    assert "RMSE in units of the target `progression`, whose standard deviation is 77.1" in out
    show(report(1.0).model_copy(update=changes | {"target_std": [1.0, 2.0], "target": ""}))
    out = capfd.readouterr().out
    assert "0.5000" in out
    assert "RMSE in standard deviations of the targets" in out


def test_sentences_come_first_then_scores_and_how_to_open_the_ui(
    capfd: pytest.CaptureFixture[str],
) -> None:
    show(report(1.25))
    out, err = capfd.readouterr()
    assert err == ""
    assert out.startswith("One network gets half of it right.\nLength: as given.\n")
    for words in ("1.2500", "not logged", "crossreg ui"):
        assert words in out
