import json
import math
import shutil

import pytest

from crossreg.core.errors import UserError
from crossreg.services.tracking import Tracker, TrackingConfig, saved_run, store, sync
from crossreg.services.tracking.figures import losses
from tests.waiting import wait_for


def test_a_stock_client_sees_the_run(begin, client, rows, tmp_path):
    tracker = begin(
        params={"theta": {"lr": 1e-3}, "data": {"name": "cifar10"}}, tags={"method": "crossreg", "seed": "0"}
    )
    assert tracker.url is None
    assert tracker.ui_command.startswith("crossreg ui --tracking-uri sqlite:///")
    for step in range(0, 100, 10):
        tracker.record({"train/loss": 1 / (1 + step), "regularizers/noise/00_conv1": 0.1}, step)
    tracker.record({"test/nll": math.nan, "worst": math.inf}, 100)
    tracker.set_note("## A run\n`crossreg train`")
    tracker.figure("losses", losses(tracker.history()))
    tracker.artifact_json({"accuracy": 0.5}, "evaluation/test.json")
    assert tracker.finish("FINISHED", timeout=30)

    run = client.get_run(tracker.run_id)
    assert run.info.status == "FINISHED"
    assert run.info.run_name == "crossreg-s0"
    assert run.info.experiment_id == tracker.experiment_id
    assert {"theta.lr": "0.001", "data.name": "cifar10"}.items() <= run.data.params.items()
    assert "version.torch" in run.data.params
    assert run.data.tags["method"] == "crossreg"
    assert run.data.tags["mlflow.note.content"].startswith("## A run")
    assert list(run.data.tags)[:2] == ["method", "seed"]  # first of all what the job says
    assert rows(tracker.run_id, "train/loss") == [(step, 1 / (1 + step)) for step in range(0, 100, 10)]
    assert math.isnan(run.data.metrics["test/nll"])
    assert run.data.metrics["worst"] > 1e308
    local = client.download_artifacts(tracker.run_id, "", str(tmp_path))
    assert json.loads((tmp_path / "evaluation/test.json").read_text()) == {"accuracy": 0.5}
    assert (tmp_path / "figures/losses.png").read_bytes().startswith(b"\x89PNG"), local


@pytest.mark.slow
def test_the_default_store_is_a_database_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    tracker = Tracker.start(
        TrackingConfig(experiment="mine", tags={"group": "a"}),
        experiment="the job's", run_name="r", params={}, tags={"group": "b"}, spool_dir=tmp_path / "runs" / "r",
        system_interval=None,
    )  # fmt: skip
    tracker.record({"train/loss": 1.0}, 0)
    tracker.artifact_json([], "a.json")
    assert tracker.finish("FAILED", timeout=30)
    assert tracker.ui_command == "crossreg ui"
    run = store.connect(f"sqlite:///{tmp_path}/mlflow.db").get_run(tracker.run_id)
    assert run.info.status == "FAILED"
    assert run.data.tags["group"] == "a"
    assert {path.name for path in tmp_path.iterdir()} == {
        "mlflow.db",
        "mlflow.db.lock",
        "mlartifacts",
        "runs",
    }


def test_going_on_with_a_run_adds_no_row_twice_and_changes_no_parameter(begin, client, rows, tmp_path):
    first = begin(params={"lr": 0.1, "epochs": 1}, tags={"attempt": "1"})
    for step in range(20):
        first.record({"train/loss": float(step)}, step)
    first.add_tag("recovered", "from step 6")
    first.add_tag("recovered", "from step 12")
    assert first.finish("KILLED", timeout=30)

    saved = saved_run(tmp_path / "spool")
    assert saved is not None
    assert saved.run_id == first.run_id
    again = begin(params={"lr": 0.1, "epochs": 2, "new": "x"}, tags={"attempt": "2"}, resume_run_id=saved.run_id)
    assert again.run_id == first.run_id
    for step in range(12, 30):  # the checkpoint was older than the last recorded step
        again.record({"train/loss": float(step)}, step)
    assert again.history() == {"train/loss": (list(range(30)), list(map(float, range(30))))}
    again.add_tag("recovered", "from step 18")
    again.add_tag("note", "something")
    assert again.finish("FINISHED", timeout=30)

    run = client.get_run(first.run_id)
    assert rows(first.run_id, "train/loss") == [(step, float(step)) for step in range(30)]
    assert run.info.status == "FINISHED"
    assert {"lr": "0.1", "epochs": "1", "new": "x"}.items() <= run.data.params.items()
    assert run.data.tags["resumed.epochs"] == "2"
    assert run.data.tags["attempt"] == "2"
    assert [run.data.tags[f"recovered.{number}"].split()[-1] for number in (1, 2, 3)] == ["6", "12", "18"]
    assert run.data.tags["note.1"] == "something"


def test_without_its_spool_a_run_is_rebuilt_from_the_store(begin, rows, tmp_path):
    first = begin()
    for step in range(20):
        first.record({"train/loss": float(step), "test/nll": math.nan if step == 3 else 1.0}, step)
    assert first.finish("KILLED", timeout=30)
    shutil.rmtree(tmp_path / "spool")

    again = begin(resume_run_id=first.run_id)
    for step in range(15, 25):
        again.record({"train/loss": float(step)}, step)
    assert again.history()["train/loss"] == (list(range(25)), list(map(float, range(25))))
    assert again.finish("FINISHED", timeout=30)
    assert rows(first.run_id, "train/loss") == [(step, float(step)) for step in range(25)]
    assert len(rows(first.run_id, "test/nll")) == 20


def test_a_spool_left_on_one_machine_adds_nothing_that_another_recorded_since(begin, rows, tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    first = begin(spool_dir=here)
    for step in range(10):
        first.record({"a": float(step)}, step)
    assert first.finish("KILLED", timeout=30)
    line = {"metrics": {"a": 10.0}, "step": 10, "time": 1_700_000_000_000}
    with (here / "spool.jsonl").open("a") as spool:
        spool.write(json.dumps(line) + "\n")  # recorded, not sent, when the machine died
    second = begin(spool_dir=there, resume_run_id=first.run_id)
    for step in range(5, 15):
        second.record({"a": float(step)}, step)
    assert second.finish("FINISHED", timeout=30)
    assert sync(here).complete
    assert rows(first.run_id, "a") == [(step, float(step)) for step in range(15)]


def test_a_folder_holds_one_run(begin, tmp_path):
    first = begin()
    with pytest.raises(UserError, match="another process records"):
        begin(resume_run_id=first.run_id)
    first.finish("FINISHED", timeout=30)
    with pytest.raises(UserError, match=f"already holds run '{first.run_id}'.*for a new run"):
        begin()
    with pytest.raises(UserError, match="already holds run"):
        begin(resume_run_id="0" * 32)


def test_a_run_that_is_not_there_or_deleted_is_named(begin, client, tmp_path):
    with pytest.raises(UserError, match="no run '0000"):
        begin(resume_run_id="0" * 32)
    first = begin()
    first.finish("FINISHED", timeout=30)
    client.delete_run(first.run_id)
    with pytest.raises(UserError, match="was deleted; `mlflow runs restore"):
        begin(resume_run_id=first.run_id)
    with pytest.raises(UserError, match=r"no run\.json"):
        sync(tmp_path / "elsewhere")


def test_a_refused_artifact_holds_up_no_metrics(begin, client, rows, tmp_path):
    tracker = begin()
    target = client.get_run(tracker.run_id).info.artifact_uri.removeprefix("file://")
    blocked = tmp_path.__class__(target)
    blocked.parent.mkdir(parents=True, exist_ok=True)
    blocked.write_text("a file where the artifact folder should be")
    tracker.artifact_json({}, "a.json")
    for step in range(5):
        tracker.record({"a": 1.0}, step)
    assert not tracker.finish("FINISHED", timeout=1.5)
    assert len(rows(tracker.run_id, "a")) == 5
    assert client.get_run(tracker.run_id).info.status == "FINISHED"
    blocked.unlink()
    assert sync(tmp_path / "spool").complete
    assert [item.path for item in client.list_artifacts(tracker.run_id)] == ["a.json"]


@pytest.mark.parametrize("name", ["../a.json", "/a.json", "", "a/../../b.json"])
def test_artifacts_stay_inside_the_run(begin, name):
    with pytest.raises(ValueError, match="artifact name"):
        begin().artifact_json({}, name)


def test_system_metrics_go_under_mlflows_names_and_count_samples(begin, client, rows):
    tracker = begin(system_interval=0.05)
    cpu = "system/cpu_utilization_percentage"
    wait_for(lambda: len(tracker.history().get(cpu, ([], []))[0]) >= 3, "three samples of the CPU", 30)
    assert tracker.finish("FINISHED", timeout=30)
    again = begin(system_interval=0.05, resume_run_id=tracker.run_id)
    before = len(rows(tracker.run_id, cpu))
    wait_for(lambda: len(again.history()[cpu][0]) > before, "sample of the run that goes on", 30)
    assert again.finish("FINISHED", timeout=30)
    steps = [step for step, _ in rows(tracker.run_id, cpu)]
    assert len(steps) > before >= 3
    assert steps == list(range(len(steps)))
    names = set(client.get_run(tracker.run_id).data.metrics)
    assert {"system/system_memory_usage_percentage", "system/disk_usage_percentage"} <= names
    assert "system/network_receive_megabytes" in names
