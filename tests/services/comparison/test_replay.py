"""Replay and refit of every regularizer of the registry, trial by trial in this process."""

from __future__ import annotations

import dataclasses
import functools
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg import UserError
from crossreg.regularizers.between import BETWEEN
from crossreg.regularizers.registry import REGISTRY, description
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Trials
from crossreg.services.comparison.outcome import ExampleScores, Outcome, _packed
from crossreg.services.comparison.reference import CrossReg, Refit
from crossreg.services.comparison.replay import Replay, Source, Verdict, find_source, verdicts
from crossreg.services.data import DataConfig, load_data
from crossreg.services.search.search import TrialResult
from crossreg.services.search.spec import Schedule, TrialSpec
from crossreg.services.search.trial import States, Trial, schedule_of
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.describe import params
from crossreg.services.training.resolve import resolve

LEARNABLE = [name for name, entry in REGISTRY.items() if entry.hyperparameter.learned_by_rho]


@pytest.fixture(autouse=True)
def _one_thread() -> None:
    torch.set_num_threads(1)


def conditions_of(regularizers: Any, **changes: Any) -> Conditions:
    config = {
        "model": "mlp",
        "model_options": {"hidden": 16, "depth": 2},
        "data": {"name": "digits", "limit": 300},
        "optimizer": {"schedule": "cosine"},
        "steps": 12,
        "batch_size": 32,
        "evaluations": 2,
        "final_samples": 4,
        "rho": {"interval": 3},
        "regularizers": regularizers,
        **changes,
    }
    loader = functools.lru_cache(maxsize=None)(lambda plain: load_data(DataConfig.model_validate_json(plain)))
    return Conditions(TrainConfig.model_validate(config), lambda data: loader(data.model_dump_json()))


def trained(spec: TrialSpec, conditions: Conditions, folder: Path) -> TrialResult:
    """Run a trial in this process."""
    data = next(d for d in (conditions.data(0), conditions.data(0, True)) if d.fingerprint == spec.data)
    trial = Trial(spec, {}, {spec.data: data}, States(folder), None)
    records = []
    while trial.step < spec.steps:
        records.append(trial.advance())
    return TrialResult(0, spec, records, trial.states, None)


def asked(method: Any, conditions: Conditions) -> TrialSpec:
    run = method.run(conditions, 0, conditions.budget("matched", 0))
    request = next(run)
    run.close()
    assert isinstance(request, Trials)
    return request.specs[0]


@pytest.mark.parametrize("name", LEARNABLE)
def test_what_was_learned_is_replayed_and_refitted(name: str, tmp_path: Path) -> None:
    start = description(name).default or description(name).at(0.6)
    between = name in {entry.name for entry in BETWEEN}
    conditions = conditions_of({name: {"start": start}}, **({"ensemble": 2} if between else {}))
    learned = trained(asked(CrossReg(), conditions), conditions, tmp_path / "learned")
    schedule = schedule_of(learned.lineage)
    names = set(conditions.space)
    assert {key for _, values in schedule for key in values} == names
    assert [step for step, _ in schedule] == [3, 6, 9, 12]
    source = Source("abc", "crossreg", learned.spec.config, schedule, {})
    assert source.as_dict()["frozen"].keys() == names
    for frozen in (False, True):
        for all_data in (False, True):
            spec = asked(Replay(source, frozen=frozen, all_data=all_data), conditions)
            assert spec.config.learned == []
            replayed = trained(spec, conditions, tmp_path / f"{frozen}{all_data}")
            first, last = replayed.records
            for key in names:
                end, middle = schedule[-1][1][key], schedule[1][1][key]
                assert last.hyperparameters[key] == pytest.approx(end, rel=2e-3), key
                assert first.hyperparameters[key] == pytest.approx(end if frozen else middle, rel=2e-3), key
    refit = Refit().run(conditions, 0, conditions.budget("2", 0))
    next(refit)
    (again,) = refit.send([learned]).specs  # type: ignore[union-attr]
    assert (again.schedule, again.config.learned, again.config.data.reg_share) == (schedule, [], 0.0)


def test_a_replay_of_a_searchs_best_has_what_that_had_and_no_more(tmp_path: Path) -> None:
    """It learns nothing itself, and where nothing is learned a search would begin to look for dropout."""
    conditions = conditions_of({"noise": None})
    found = trained(conditions.trial(0, select=True, **conditions.searched()), conditions, tmp_path / "found")
    source = Source("abc", "pbt", found.spec.config, schedule_of(found.lineage), {})
    own = dataclasses.replace(conditions, config=TrainConfig.model_validate(found.spec.config.model_dump()))
    for frozen in (False, True):
        replayed = trained(asked(Replay(source, frozen=frozen), own), own, tmp_path / str(frozen))
        assert replayed.final.hyperparameters == pytest.approx(found.final.hyperparameters, rel=1e-4)


def test_a_replay_leaves_alone_what_was_fixed(tmp_path: Path) -> None:
    conditions = conditions_of({"noise": None, "noise/00_norm1": 0.4, "shift": 1.5, "weight_decay": 0.1})
    learned = trained(asked(CrossReg(), conditions), conditions, tmp_path / "learned")
    source = Source("abc", "crossreg", learned.spec.config, schedule_of(learned.lineage), {})
    replayed = trained(asked(Replay(source), conditions), conditions, tmp_path / "replayed")
    assert replayed.final.hyperparameters == pytest.approx(learned.final.hyperparameters, rel=1e-4)
    assert replayed.final.hyperparameters["noise/00_norm1"] == pytest.approx(0.4)


def test_a_verdict_says_whether_the_replay_reached_the_run_and_what_that_means() -> None:
    losses = torch.tensor([0.1, 0.3] * 50)
    packed = ExampleScores(split="x", scores=_packed({"nll": losses}))
    outcomes = [
        Outcome(
            method=mode, budget="matched", seed=seed, test={"nll": 0.2 + 0.01 * seed, "accuracy": 0.9}, examples=packed
        )
        for mode in ("schedule", "frozen")
        for seed in (0, 1)
    ]

    def found(nll: float) -> list[Verdict]:
        return verdicts(Source("abc", "crossreg", conditions_of({}).reference(0), [], {"nll": nll}), outcomes)

    first, second = found(0.21)
    assert (first.mode, second.mode, first.found) == ("schedule", "frozen", "reached")
    assert first.replay == pytest.approx(0.205)
    deviation = losses.double().var() / 100 + 0.00005  # over test examples, and over the two seeds
    assert first.margin == pytest.approx(2 * float(deviation / 2) ** 0.5, rel=1e-2)
    assert "(NLL 0.2050, the run's 0.2100; within 0.01" in first.text
    assert "carries over" in first.text
    assert "from the start, are enough" in second.text
    first, second = found(0.1)
    assert (first.found, second.found) == ("short", "short")
    assert "how they changed on the way mattered" in second.text
    assert found(0.3)[0].found == "better"
    assert found(math.nan)[0].found == "unknown"


def tracked(folder: Path, **tags: str) -> tuple[TrackingConfig, Tracker]:
    tracking = TrackingConfig(uri=f"sqlite:///{folder}/mlflow.db")
    tracker = Tracker.start(
        tracking, experiment="e", run_name="r", params={}, tags=tags, spool_dir=folder / "tracking",
        system_interval=None,
    )  # fmt: skip
    return tracking, tracker


def test_a_source_is_found_in_what_a_training_recorded(tmp_path: Path) -> None:
    """Metrics below `regularizers/` are the schedule, under the names that a replay sets."""
    conditions = conditions_of({"noise": None, "temperature": None, "l2": None, "shift": None})
    config = conditions.reference(0)
    tracking, tracker = tracked(tmp_path, **{"crossreg.config": config.model_dump_json(exclude_none=True)})
    schedule: Schedule = []
    for step in (3, 6):
        values = {name: 0.1 * step + place for place, name in enumerate(conditions.space)}
        tracker.record({**{f"regularizers/{name}": value for name, value in values.items()}, "reg/loss": 1.0}, step)
        schedule.append((step, values))
    tracker.record({"test/accuracy": 0.9}, 12)
    assert tracker.finish("FINISHED")
    found = find_source(tracking, tracker.run_id)
    assert found.schedule == [(step, pytest.approx(values)) for step, values in schedule]
    assert found.test == {"accuracy": 0.9}
    assert found.method == "crossreg"
    again = Conditions(found.config, conditions.load)
    assert again.reference(0) == config
    assert asked(Replay(found), again).schedule == found.schedule


def test_what_has_nothing_to_replay_is_named(tmp_path: Path) -> None:
    plain = conditions_of({}).reference(0).model_dump_json(exclude_none=True)
    tracking, tracker = tracked(tmp_path / "a", **{"crossreg.config": plain})
    assert tracker.finish("FINISHED")
    with pytest.raises(UserError, match="learned no regularization"):
        find_source(tracking, tracker.run_id)
    found = TrainConfig.model_validate({"data": {"name": "digits"}}).model_dump_json(exclude_none=True)
    tracking, tracker = tracked(tmp_path / "c", **{"crossreg.config": found})
    assert tracker.finish("FINISHED")
    with pytest.raises(UserError, match="found its length while it trained"):
        find_source(tracking, tracker.run_id)
    tracking, tracker = tracked(tmp_path / "b", kind="reproduce")
    assert tracker.finish("FINISHED")
    with pytest.raises(UserError, match="is a reproduce run"):
        find_source(tracking, tracker.run_id)


def test_params_say_what_regularizes() -> None:
    from crossreg.services.training.config import Placement

    conditions = conditions_of({"noise": None, "l2": 0.01})
    said = params(conditions.reference(0), Placement(), conditions.data(0))
    assert said["regularizers"]["l2"] == {"learn": False, "value": 0.01}
    assert said["regularizers"]["noise"] == {"learn": True, "start": 0.1}


def test_the_run_of_a_comparison_that_found_its_length_is_no_source(tmp_path: Path) -> None:
    config = TrainConfig.model_validate({"data": {"name": "digits"}, "model": "mlp"})
    found = resolve(config, load_data(config.data))
    outcome = Outcome(
        method="crossreg", budget="matched", seed=0, test={}, config=found, schedule=[(0, {"weight_decay": 0.2})]
    )
    tracking, tracker = tracked(tmp_path, kind="method")
    tracker.artifact("outcome.json", outcome.model_dump_json().encode())
    assert tracker.finish("FINISHED")
    with pytest.raises(UserError, match="found its length while it trained"):
        find_source(tracking, tracker.run_id)
