"""What a comparison leaves in MLflow, and how it starts and ends, in this process and with real trials."""

from __future__ import annotations

import itertools
import json
import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from mlflow import MlflowClient

from crossreg import UserError
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.comparison.outcome import best_of, outcome_of
from crossreg.services.comparison.recording import Recorder
from crossreg.services.comparison.reference import CrossReg
from crossreg.services.comparison.run_jobs import Job
from crossreg.services.comparison.session import ComparisonDisplay, run_methods, session
from crossreg.services.search.search import TrialResult
from crossreg.services.search.trial import States, Trial
from crossreg.services.tracking import TrackingConfig
from crossreg.services.training.config import Placement
from crossreg.services.training.errors import TrainingError, TrainingInterruptedError
from crossreg.services.training.storage import RunFolder
from tests.services.comparison.test_replay import asked, conditions_of, trained

CONDITIONS = conditions_of(["noise", "temperature", "l2"])
REFERENCE = Job(CrossReg(), "matched", 0)


class Search(PopulationSearch):
    """A population that is not tuned any further."""

    name = "search"
    summary = "a search"


SEARCH = Job(Search(), "full", 0)


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


@pytest.fixture(scope="module")
def results(tmp_path_factory: pytest.TempPathFactory) -> list[TrialResult]:
    """The reference, and two members of a search."""
    torch.set_num_threads(1)
    folder = tmp_path_factory.mktemp("trials")
    found = [trained(asked(CrossReg(), CONDITIONS), CONDITIONS, folder / "reference")]
    for index, start in enumerate(Search().starts(CONDITIONS, 0, 2)):
        spec = CONDITIONS.trial(0, member=index, select=True, **CONDITIONS.fixed())
        trial = Trial(spec, {}, {spec.data: CONDITIONS.data(0)}, States(folder / "search"), None)
        trial.continue_from(None, start)
        found.append(TrialResult(index, spec, [trial.advance(), trial.advance()], trial.states, None))
    return found


def recorder(folder: Path) -> Recorder:
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    return Recorder(
        tracking, CONDITIONS, folder / "files", experiment="e", name="compare-x", params={}, tags={"kind": "compare"}
    )


def tell(recorder: Recorder, results: list[TrialResult], intervals: int = 2) -> None:
    reference, *members = results
    recorder.started(REFERENCE, CONDITIONS.budget("matched", 0))
    recorder.started(SEARCH, CONDITIONS.budget("full", 0))
    for record in reference.records[:intervals]:
        recorder.interval(REFERENCE, 0, reference.spec, record)
    for place, member in enumerate(members):
        for record in member.records[:intervals]:
            recorder.interval(SEARCH, place, member.spec, record)


def outcomes(results: list[TrialResult]) -> tuple[Any, Any]:
    reference, *members = results
    return (
        outcome_of([reference], reference.final, method="crossreg", budget="matched", seed=0),
        outcome_of(members, best_of(members), method="search", budget="full", seed=0),
    )


def runs(folder: Path) -> dict[str, Any]:
    client = MlflowClient(f"sqlite:///{folder}/mlflow.db")
    ids = [experiment.experiment_id for experiment in client.search_experiments()]
    return {run.info.run_name: run for run in client.search_runs(ids)}


def test_methods_and_trials_are_nested_runs_under_the_names_of_the_hyperparameters(
    results: list[TrialResult], tmp_path: Path
) -> None:
    writer = recorder(tmp_path)
    tell(writer, results)
    one, other = outcomes(results)
    writer.ended(REFERENCE, one)
    writer.ended(SEARCH, other)
    writer.settle()
    writer.close("FINISHED")
    found = runs(tmp_path)
    names = ["compare-x", "crossreg-s0", "search-full-s0", "search-full-s0-00", "search-full-s0-01"]
    assert sorted(found) == names
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    parent = {name: run.data.tags.get("mlflow.parentRunId") for name, run in found.items()}
    ids = {name: run.info.run_id for name, run in found.items()}
    assert [parent[name] for name in names] == [None, *[ids["compare-x"]] * 2, *[ids["search-full-s0"]] * 2]
    space = {f"regularizers/{name}" for name in CONDITIONS.space}
    learned = found["crossreg-s0"].data
    assert space <= set(learned.metrics)
    for name in CONDITIONS.space:
        assert learned.metrics[f"regularizers/{name}"] == pytest.approx(one.regularizers[name])
    assert (learned.params["method"], learned.params["regularizers.l2.learn"]) == ("crossreg", "True")
    for place, member in enumerate(results[1:]):
        data = found[f"search-full-s0-{place:02d}"].data
        assert {key for key in data.metrics if key.startswith("regularizers/")} == space
        for name, value in member.final.given.items():
            assert data.metrics[f"regularizers/{name}"] == pytest.approx(value)
        assert data.params["regularizers.l2.learn"] == "False"
    assert found["search-full-s0"].data.metrics["test/nll"] == pytest.approx(other.test["nll"])
    assert other.run_id == ids["search-full-s0"]
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    path = client.download_artifacts(other.run_id, "outcome.json", str(tmp_path))
    assert json.loads(Path(path).read_text())["method"] == "search"


def test_a_comparison_that_goes_on_doubles_nothing(results: list[TrialResult], tmp_path: Path) -> None:
    first = recorder(tmp_path)
    tell(first, results, intervals=1)
    first.settle()
    first.close("KILLED")
    assert {run.info.status for run in runs(tmp_path).values()} == {"KILLED"}
    second = recorder(tmp_path)
    tell(second, results)  # a search that is run again tells of its finished intervals too
    for job, outcome in zip((REFERENCE, SEARCH), outcomes(results), strict=True):
        second.ended(job, outcome)
    second.settle()
    second.close("FINISHED")
    found = runs(tmp_path)
    assert len(found) == 5
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    client = MlflowClient(f"sqlite:///{tmp_path}/mlflow.db")
    for run in found.values():
        for key in run.data.metrics:
            steps = [point.step for point in client.get_metric_history(run.info.run_id, key)]
            assert len(steps) == len(set(steps)), key


def test_what_goes_wrong_in_recording_is_raised_where_it_is_waited_for(
    results: list[TrialResult], tmp_path: Path
) -> None:
    writer = recorder(tmp_path)
    broken = results[0].records[0].model_copy(update={"metrics": [(1, 0, {"bad\nname[": 1.0})]})
    writer.interval(REFERENCE, 0, results[0].spec, broken)
    writer.started(REFERENCE, CONDITIONS.budget("matched", 0))
    with pytest.raises(Exception, match="bad"):
        writer.settle()
    writer.close("FAILED")


@pytest.fixture(scope="module")
def _ray() -> Iterator[None]:
    import ray

    from crossreg.services.training.runtime import start_ray

    start_ray(Placement())
    yield
    ray.shutdown()


class Display(ComparisonDisplay):
    """Keeps what it is told, and sends a signal at the first interval."""

    def __init__(self, number: int | None = None) -> None:
        self.phases: list[str] = []
        self.number = number

    def phase(self, text: str) -> None:
        self.phases.append(text)

    def interval(self, *told: Any) -> None:
        if self.number is not None:
            os.kill(os.getpid(), self.number)


def ask(folder: Path, display: Display, methods: list[Any] | None = None) -> list[Any]:
    return run_methods(
        CONDITIONS.config,
        methods or [CrossReg()],
        1,
        Placement(storage_path=str(folder / "runs")),
        TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
        kind="replay",
        of="abc",
        display=display,
    )


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_session_runs_methods_and_closes_their_runs(tmp_path: Path) -> None:
    display = Display()
    (outcome,) = ask(tmp_path, display)
    assert outcome.learned == sorted(CONDITIONS.space)
    assert display.phases == ["loading digits", "starting Ray", "opening the MLflow runs", "starting the workers"]
    found = runs(tmp_path)
    assert {run.info.status for run in found.values()} == {"FINISHED"}
    assert {run.data.tags["kind"] for run in found.values()} == {"replay", "method"}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
@pytest.mark.thorough
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_a_session_and_marks_its_runs(number: signal.Signals, tmp_path: Path) -> None:
    with pytest.raises(TrainingInterruptedError, match="stopped"):
        ask(tmp_path, Display(number))
    assert {run.info.status for run in runs(tmp_path).values()} == {"KILLED"}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_failure_ends_a_session_and_marks_its_runs(tmp_path: Path) -> None:
    errors = itertools.chain([ValueError("ours"), UserError("theirs")])
    for error in errors:
        folder = tmp_path / type(error).__name__
        folder.mkdir()
        with (
            pytest.raises(type(error)),
            session(
                CONDITIONS,
                Placement(storage_path=str(folder)),
                TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
                RunFolder(str(folder), "run"),
                kind="compare",
                params={},
                tags={},
                note="n",
                display=Display(),
            ),
        ):
            raise error
        assert {run.info.status for run in runs(folder).values()} == {"FAILED"}


@pytest.mark.ray
@pytest.mark.usefixtures("_ray")
def test_a_trial_that_fails_says_how_to_go_on(tmp_path: Path) -> None:
    from crossreg.services.search.search import SearchError

    folder = tmp_path
    with (
        pytest.raises(TrainingError, match=r"lost; go on with: crossreg compare --resume [0-9a-f]{32}"),
        session(
            CONDITIONS,
            Placement(storage_path=str(folder)),
            TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db"),
            RunFolder(str(folder), "run"),
            kind="compare",
            params={},
            tags={},
            note="n",
            display=Display(),
        ),
    ):
        raise SearchError("a worker was lost")
