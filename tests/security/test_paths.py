"""Names are names: whatever they hold, nothing is written outside the storage path and the store's own folder."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from crossreg.core.errors import UserError
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.tracking.outbox import Outbox
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.describe import slug
from crossreg.services.training.storage import RunFolder, check_storage, new_name
from tests.security.throwing import everything

EVIL = ["../../x", "/tmp/crossreg-traversal", "$(touch pwned)"]
_parts = st.sampled_from(["..", ".", "/", "\\", "~", "a", ":", "%2e", "$(x)", " ", "con", "-"])


@settings(max_examples=200, derandomize=True, deadline=None, database=None)
@given(st.lists(_parts, min_size=1, max_size=8).map("".join), st.lists(_parts, max_size=6).map("".join))
def test_a_runs_folder_lies_in_the_storage_path(data: str, model: str) -> None:
    config = TrainConfig.model_validate({"model": model, "data": {"name": data}})
    name = new_name(f"{slug(config)}-crossreg-s0")
    folder = RunFolder("/srv/runs", name).local
    assert folder.resolve().parent == Path("/srv/runs")
    assert RunFolder.at(RunFolder("/srv/runs", name).location).local == folder


def test_names_of_runs_and_experiments_are_no_paths(tmp_path: Path) -> None:
    """Into a real store: its artifacts lie under the run's id, whatever the names are."""
    inside = tmp_path / "one" / "two"
    inside.mkdir(parents=True)
    for number, name in enumerate(EVIL):
        tracker = Tracker.start(
            TrackingConfig(uri=f"sqlite:///{inside}/mlflow.db", experiment=name),
            experiment="unused",
            run_name=name,
            params={"data": {"name": name}},
            tags={name.replace("/", "_"): name},
            spool_dir=inside / f"spool{number}",
            system_interval=None,
        )
        tracker.artifact("deep/file.txt", b"content")
        tracker.dataset(name, "0123", name)
        assert tracker.finish("FINISHED")
    assert {path.name for path in inside.iterdir()} == {
        "mlflow.db",
        "mlflow.db.lock",
        "mlartifacts",
        *(f"spool{number}" for number in range(len(EVIL))),
    } - {name for name in ("mlflow.db.lock",) if not (inside / name).exists()}
    assert {path.name for path in tmp_path.iterdir()} == {"one"}
    assert {path.name for path in (tmp_path / "one").iterdir()} == {"two"}
    assert not Path("/tmp/crossreg-traversal").exists()
    with sqlite3.connect(inside / "mlflow.db") as database:
        assert {row[0] for row in database.execute("select name from experiments")} >= set(EVIL)
    assert len(list((inside / "mlartifacts").glob("*/artifacts/deep/file.txt"))) == len(EVIL)


@pytest.mark.parametrize("name", ["../x", "/etc/x", "a/../../x", "", ".hidden", ".."])
def test_an_artifacts_name_stays_in_the_run(name: str, tmp_path: Path) -> None:
    before = everything(tmp_path)
    with pytest.raises(ValueError, match="not allowed"):
        Outbox(tmp_path / "spool").put(name, b"x")
    assert everything(tmp_path) == before


def test_keys_in_a_storage_path_are_refused() -> None:
    """They would be recorded with the run, which needs the path to be resumed."""
    with pytest.raises(UserError, match="holds credentials") as caught:
        check_storage("s3://key:hunter2@bucket/runs")
    assert "hunter2" not in str(caught.value)


def test_a_store_that_is_refused_leaves_no_spool_folder(tmp_path: Path) -> None:
    (tmp_path / "mlflow.db").write_bytes(b"this is no database, " * 9)
    before = everything(tmp_path)
    with pytest.raises(UserError, match="an SQLite database"):
        Tracker.start(
            TrackingConfig(uri=f"sqlite:///{tmp_path}/mlflow.db"),
            experiment="e",
            run_name="r",
            params={},
            tags={},
            spool_dir=tmp_path / "runs" / "one" / "tracking",
        )
    assert everything(tmp_path) == before
