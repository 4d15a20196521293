"""`crossreg compare` and `crossreg replay` as a user runs them: stopped, gone on with, replayed."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.waiting import wait_for

ROOT = Path(__file__).resolve().parents[2]

SETTINGS: dict[str, Any] = {
    "model": "mlp",
    "model_options": {"hidden": 64, "depth": 2},
    "data": {"name": "digits"},
    "steps": 240,
    "batch_size": 64,
    "evaluations": 8,
    "interim_test": 100,
    "rho": {"interval": 10},
    "optimizer": {"schedule": "cosine"},
    "compare": {"methods": ["crossreg", "none", "pbt"], "population": 3, "seeds": 1, "budgets": ["full"]},
}


LEARNED = ["noise/00_norm1", "noise/01_norm2", "temperature"]


def start(folder: Path, *arguments: str) -> subprocess.Popen[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS"):
        environment.pop(name, None)
    return subprocess.Popen(
        [sys.executable, "-m", *arguments],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )


def finish(process: subprocess.Popen[str], code: int = 0) -> tuple[str, str]:
    try:
        out, err = process.communicate(timeout=240)
    except subprocess.TimeoutExpired:
        process.kill()
        raise
    assert process.returncode == code, err[-3000:]
    return out, err


def begun(folder: Path) -> dict[str, int]:
    """How often each interval of the search was begun."""
    return {path.stem: path.stat().st_size for path in folder.glob("runs/*/pbt-full-s0/search-0/states/*.begun")}


def statuses(folder: Path) -> set[str]:
    from mlflow import MlflowClient

    client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.status for run in client.search_runs(ids)}


@pytest.fixture(scope="module")
def compared(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict[str, Any], str]:
    """A comparison that was stopped by Ctrl-C in the middle of its search and gone on with."""
    folder = tmp_path_factory.mktemp("compare")
    (folder / "compare.yaml").write_text(yaml.safe_dump(SETTINGS))
    process = start(folder, "crossreg.jobs.compare", "--config", "compare.yaml")
    wait_for(
        lambda: len(list(folder.glob("runs/*/pbt-full-s0/search-0/states/*.json"))) >= 4,
        "fourth interval of the search", 240, process=process,
        said=lambda: process.communicate(timeout=10)[1] if process.poll() is not None else "",
    )  # fmt: skip
    process.send_signal(signal.SIGINT)
    _, err = finish(process, code=130)
    run_id = re.findall(r"--resume\s+([0-9a-f]{32})", err)[0]
    assert statuses(folder) <= {"FINISHED", "KILLED"}
    done = list(folder.glob("runs/*/*/outcome.json"))
    assert {path.parent.name for path in done} == {"crossreg-matched-s0", "none-matched-s0"}
    before = {path: path.stat().st_mtime_ns for path in done}
    out, _ = finish(start(folder, "crossreg.jobs.compare", "--resume", "latest", "--json"))
    assert {path: path.stat().st_mtime_ns for path in done} == before, "a finished part was run again"
    return folder, json.loads(out), run_id


@pytest.mark.slow
@pytest.mark.ray
class TestCompare:
    def test_json_has_the_numbers(self, compared: tuple[Path, dict[str, Any], str]) -> None:
        _, report, run_id = compared
        assert report["run_id"] == run_id
        rows = {(row["method"], row["budget"]): row for row in report["rows"]}
        assert set(rows) == {("crossreg", "matched"), ("none", "matched"), ("pbt", "full")}
        assert rows["pbt", "full"]["compute_ratio"] == pytest.approx(3, rel=0.05)
        assert rows["none", "matched"]["compute_ratio"] == pytest.approx(1, rel=0.05)
        assert all(row["scores"]["accuracy"]["mean"] > 0.8 for row in rows.values())
        assert len(report["sentences"]) == 2

    def test_an_interrupted_search_loses_at_most_an_interval_a_worker(
        self, compared: tuple[Path, dict[str, Any], str]
    ) -> None:
        times = begun(compared[0])
        assert len(times) == 3 * 8
        assert sum(times.values()) - len(times) <= 3
        assert set(times.values()) <= {1, 2}

    def test_everything_is_in_mlflow(self, compared: tuple[Path, dict[str, Any], str]) -> None:
        from mlflow import MlflowClient

        folder, _, run_id = compared
        assert statuses(folder) == {"FINISHED"}
        client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        (experiment,) = (e.experiment_id for e in client.search_experiments() if e.name == "digits-mlp")
        runs = client.search_runs([experiment])
        parents = {run.info.run_id: run.data.tags.get("mlflow.parentRunId") for run in runs}
        kinds = {run.info.run_id: run.data.tags["kind"] for run in runs}
        assert sorted(kinds.values()) == ["compare", *["method"] * 3, *["trial"] * 3]
        assert {parents[run] for run, kind in kinds.items() if kind == "method"} == {run_id}
        (pbt,) = (run for run in runs if run.data.tags.get("method") == "pbt" and kinds[run.info.run_id] == "method")
        members = [run for run in runs if kinds[run.info.run_id] == "trial"]
        assert {parents[run.info.run_id] for run in members} == {pbt.info.run_id}
        for run in members:
            # every boundary once, though the search was stopped and run again
            steps = [point.step for point in client.get_metric_history(run.info.run_id, "reg/nll")]
            assert len(steps) == len(set(steps)) == 8
            assert {f"regularizers/{name}" for name in LEARNED} <= set(run.data.metrics)
        artifacts = {entry.path for entry in client.list_artifacts(run_id)}
        assert {"report.html", "report.md", "figures", "outcomes.json"} <= artifacts

    def test_report_is_one_file(self, compared: tuple[Path, dict[str, Any], str]) -> None:
        page = Path(compared[1]["report"]).read_text()
        assert page.count("data:image/png;base64") >= 3
        assert not re.findall(r'(?:src|href)="https?:', page)
        assert "crossreg.jobs.compare --config compare.yaml" in page  # the first command, not the one that went on

    @pytest.mark.thorough
    def test_replay_carries_a_found_schedule_over(self, compared: tuple[Path, dict[str, Any], str]) -> None:
        from mlflow import MlflowClient

        folder, _, _ = compared
        client = MlflowClient(tracking_uri=f"sqlite:///{folder / 'mlflow.db'}")
        ids = [experiment.experiment_id for experiment in client.search_experiments()]
        runs = client.search_runs(ids, "tags.kind = 'method' and tags.method = 'pbt'")
        arguments = ("crossreg.jobs.replay", "--run", runs[0].info.run_id)
        finish(start(folder, *arguments, "--export", "schedule.json"))
        exported = json.loads((folder / "schedule.json").read_text())
        steps = [entry["step"] for entry in exported["schedule"]]
        assert steps[0] == 0
        assert steps == sorted(steps)
        assert len(steps) == 8  # one an interval: nothing of the way is missing
        out, _ = finish(start(folder, *arguments, "--json"))
        replays = {replay["mode"]: replay for replay in json.loads(out)["replays"]}
        assert set(replays) == {"schedule", "frozen"}
        original = json.loads(out)["source"]["test"]["accuracy"]
        assert all(abs(replay["test"]["accuracy"] - original) < 0.1 for replay in replays.values())
        frozen = client.get_run(replays["frozen"]["run_id"]).data.metrics
        for name in LEARNED:
            assert frozen[f"regularizers/{name}"] == pytest.approx(exported["frozen"][name], rel=1e-4)
