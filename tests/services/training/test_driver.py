from __future__ import annotations

import sys

import pytest

from services.data import load_data
from services.training.config import TrainConfig
from services.training.driver import _note


def test_the_note_of_a_run_holds_the_command_and_no_password(monkeypatch: pytest.MonkeyPatch) -> None:
    uri = "postgresql://me:hunter2@db/mlflow"
    monkeypatch.setattr(sys, "argv", ["/env/bin/crossreg", "train", "--data", "digits", "--tracking-uri", uri])
    config = TrainConfig.model_validate({"data": {"name": "digits"}})
    note = _note(config, load_data(config.data))
    assert "crossreg train --data digits --tracking-uri" in note
    assert "hunter2" not in note
    monkeypatch.setattr(sys, "argv", ["/code/jobs/train.py", "--data", "digits"])
    monkeypatch.setattr(sys, "orig_argv", ["/env/bin/python", "-m", "jobs.train", "--data", "digits"])
    assert "python -m jobs.train --data digits" in _note(config, load_data(config.data))
