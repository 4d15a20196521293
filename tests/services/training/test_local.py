"""Training in this process, `--workers 0`: interrupted and gone on, with what goes wrong said and nothing of Ray."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg import UserError
from crossreg.services.data import DataConfig, load_data
from crossreg.services.tracking import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.driver import FinishedTraining, train
from crossreg.services.training.errors import TrainingInterruptedError
from crossreg.services.training.line import LocalLine
from crossreg.services.training.local import kept_here, left_here
from crossreg.services.training.messages import Note
from crossreg.services.training.progress import Silent
from crossreg.services.training.resolve import resolve
from crossreg.services.training.resume import find_run
from crossreg.services.training.runtime import start_ray


def here(folder: Path, *, display: Any = None, resume: Any = None, **given: Any) -> FinishedTraining:
    config = TrainConfig.model_validate({"data": {"name": "iris"}, "model": "mlp", "steps": 40, **given})
    place = Placement(workers=0, storage_path=str(folder / "runs"), checkpoint_every=10)
    tracking = TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}")
    return train(config, place, tracking, display=display, resume=resume)


class StopAt(Silent):
    """Sends a SIGTERM once a step is shown."""

    sent = False

    def update(self, step: int, values: dict[str, float]) -> None:
        if step >= 15 and not self.sent:
            self.sent = True
            os.kill(os.getpid(), signal.SIGTERM)


def test_interrupted_and_gone_on_it_ends_as_if_it_had_not_been(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("crossreg.services.training.reporting._FLUSH_SECONDS", 0.0)
    monkeypatch.setattr("crossreg.services.training.stopping._LOOK_EVERY", 0.0)
    state = torch.get_rng_state()
    whole = here(tmp_path / "whole")
    assert torch.get_rng_state().equal(state)
    with pytest.raises(TrainingInterruptedError, match="where a checkpoint was written; go on with --resume") as caught:
        here(tmp_path / "cut", display=StopAt())
    run_id = str(caught.value).rpartition(" ")[2]
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'cut' / 'mlflow.db'}")
    found, config = find_run(tracking, run_id)
    again = here(tmp_path / "cut", resume=found, **{"steps": config["steps"]})
    assert again.run_id == run_id
    assert again.test == whole.test
    ends = [torch.load(one.checkpoint, weights_only=True)["state"]["model"] for one in (whole, again)]
    assert all(value.equal(ends[1][name]) for name, value in ends[0].items())
    assert len(list((tmp_path / "whole" / "runs").glob("*/checkpoint_*"))) == 2
    # what a training on Ray would go on from, unless Ray Train keeps an account of its own
    folder, data = found.folder, load_data(DataConfig(name="iris"))
    resolved = resolve(TrainConfig.model_validate(config), data)
    line = LocalLine()
    left = left_here(resolved, data, folder, line)
    assert left is not None
    assert left["step"] == 40
    assert line.fetch(0, 0) == []
    account = folder.local / "checkpoint_manager_snapshot.json"
    account.write_text("{}")
    assert left_here(resolved, data, folder, line) is None
    account.write_text('{"ray_version": "2.6')  # a full disk
    (Path(kept_here(folder)[0].path) / "checkpoint.pt").write_bytes(b"half")
    left = left_here(resolved, data, folder, line)
    assert left is not None
    assert left["step"] == 30
    said = [message.text for message in line.fetch(0, 0) if isinstance(message, Note)]
    assert f"{account}, Ray Train's list of the run's checkpoints, is torn; training goes on from the last" in said[0]
    assert "the one before it, of step 30, is used instead" in said[1]
    assert not account.exists()
    account.write_text("{}")
    assert here(tmp_path / "cut", resume=found, steps=44).test.keys() == again.test.keys()
    assert not account.exists()


def test_no_ray_is_imported(tmp_path: Path) -> None:
    code = (
        "import sys; from crossreg.jobs.train import app\n"
        "sys.argv[1:] = '--data iris --steps 4 --workers 0 --json'.split()\n"
        "try: app()\nfinally: print([one for one in sys.modules if one.partition('.')[0] == 'ray'], file=sys.stderr)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=True, timeout=200
    )
    assert done.stderr.rstrip().endswith("[]")
    assert json.loads(done.stdout)["test"]["accuracy"] > 0.3


def test_what_needs_ray_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(UserError, match="workers is 0, .* this runs on Ray, so use 1 or more"):
        start_ray(Placement(workers=0))
    config = TrainConfig(data=DataConfig(name="iris"), steps=4)
    place = Placement(workers=0, storage_path=f"local://{tmp_path}/bucket")
    with pytest.raises(UserError, match="--workers 0 keeps checkpoints in a local folder"):
        train(config, place, TrackingConfig(), data=load_data(config.data))
