"""Which run `--resume latest` goes on with."""

from __future__ import annotations

from pathlib import Path

import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking import Tracker, TrackingConfig, store
from crossreg.services.tracking.tracker import Status
from crossreg.services.training.resume import latest_run


def made(folder: Path, name: str, status: Status | None, kind: str = "train", experiment: str = "a") -> str:
    """Record a run whose files are in a folder of its name, and return its id; without a status it never ended."""
    (folder / name).mkdir()
    tracker = Tracker.start(
        TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"), experiment=experiment, run_name=name, params={},
        tags={"kind": kind, "crossreg.storage": str(folder / name)}, spool_dir=folder / name / "tracking",
        system_interval=None,
    )  # fmt: skip
    assert tracker.finish(status or "KILLED")
    if status is None:  # as a power cut leaves it
        store.connect(f"sqlite:///{folder}/mlflow.db").update_run(tracker.run_id, status="RUNNING")
    return tracker.run_id


def test_the_newest_that_has_not_finished_and_whose_files_are_there(tmp_path: Path) -> None:
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db")
    with pytest.raises(UserError, match="there is no store at all"):
        latest_run(tracking, "train")
    done = made(tmp_path, "done", "FINISHED", experiment="b")
    with pytest.raises(UserError, match=r"no run of `crossreg train` at .*mlflow.db' can be gone on with; one that"):
        latest_run(tracking, "train")
    assert latest_run(tracking, "train", finished=True)[0] == done
    stopped = made(tmp_path, "stopped", "KILLED")
    made(tmp_path, "later", "FINISHED")
    compared = made(tmp_path, "compared", "FAILED", kind="compare")
    run_id, said = latest_run(tracking, "train")
    assert run_id == stopped
    assert said.startswith("stopped of a, begun 20")
    assert said.endswith(", killed")
    assert latest_run(tracking, "compare")[0] == compared
    crashed = made(tmp_path, "crashed", None)
    assert latest_run(tracking, "train")[0] == crashed
    with pytest.raises(UserError, match=r"in experiment 'b' can be gone on with"):
        latest_run(tracking.model_copy(update={"experiment": "b"}), "train")
    for name in ("crashed", "stopped"):
        (tmp_path / name).rename(tmp_path / f"{name}-moved")
    with pytest.raises(UserError, match="the files of 2 are gone"):
        latest_run(tracking, "train")
