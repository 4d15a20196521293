from __future__ import annotations

import json
import math

import pytest

from jobs.train import as_dict, show
from services.training.driver import Report


def report(nll: float) -> Report:
    return Report(
        run_id="abc",
        test={"accuracy": 0.5, "nll": nll, "brier": 0.7, "ece": 0.1},
        test_scaled={},
        sigma={"norm1": 0.25},
        compute={"examples": 10.0, "flops": math.nan, "worker_seconds": 2.0},
        checkpoint="runs/x/checkpoint.pt",
        model_uri=None,
        ui_command="crossreg ui",
        url=None,
    )


def test_json_has_no_nan_and_keeps_the_agreed_keys() -> None:
    text = json.dumps(as_dict(report(math.nan)), allow_nan=False)
    plain = json.loads(text)
    assert {"run_id", "test", "sigma", "compute", "checkpoint", "model_uri"} <= set(plain)
    assert plain["test"]["nll"] is None
    assert plain["compute"] == {"examples": 10.0, "flops": None, "worker_seconds": 2.0}
    assert plain["sigma"] == {"norm1": 0.25}


def test_table_shows_scores_sigma_and_the_command_that_opens_the_ui(capfd: pytest.CaptureFixture[str]) -> None:
    show(report(1.25))
    out, err = capfd.readouterr()
    assert out == ""
    for words in ("1.2500", "norm1 0.25", "not logged", "crossreg ui"):
        assert words in err
