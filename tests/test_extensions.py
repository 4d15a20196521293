"""What is added in one file and a registry is at once in flags, files, searches, metrics, replays and reports."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from typer.testing import CliRunner

from crossreg.baselines import METHODS
from crossreg.core.metrics import hyperparameters_in
from crossreg.jobs import compare, flags, train
from crossreg.regularizers.registry import REGISTRY
from crossreg.services.comparison.compare import jobs_of
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.comparison.outcome import outcome_of
from crossreg.services.comparison.reference import CrossReg
from crossreg.services.comparison.replay import Replay, Source
from crossreg.services.comparison.report import Context, write_report
from crossreg.services.comparison.report.figures import schedules
from crossreg.services.comparison.report.groups import group_outcomes
from crossreg.services.comparison.report.summary import summarize
from crossreg.services.search.trial import schedule_of
from crossreg.services.tracking import figures
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.result import result_of
from crossreg.training.rules import RULES
from tests.baselines.test_fairness import SEARCHES, looked_through, request_of
from tests.extensions.good_enough import GoodEnough
from tests.extensions.heavy_decay import HeavyDecay
from tests.extensions.orthogonality import ORTHOGONALITY
from tests.services.comparison.test_replay import asked, conditions_of, trained

NAME = "orthogonality"
CPU = torch.device("cpu")


@pytest.fixture
def added(monkeypatch: pytest.MonkeyPatch) -> None:
    torch.set_num_threads(1)
    monkeypatch.setitem(REGISTRY, NAME, ORTHOGONALITY)
    monkeypatch.setitem(RULES, GoodEnough.name, GoodEnough)
    monkeypatch.setitem(METHODS, HeavyDecay.name, HeavyDecay())


def training(file: Path | None = None, **given: Any) -> TrainConfig:
    (what,) = flags.settings({"data": "digits", **given}, TrainConfig, file=file)
    return TrainConfig.model_validate(what)


def shown(app: Any, *arguments: str) -> str:
    return CliRunner(env={"COLUMNS": "300", "TERM": "dumb"}).invoke(app, arguments).output


@pytest.mark.usefixtures("added")
def test_a_regularizer_is_a_flag_and_a_key(tmp_path: Path) -> None:
    assert training(learn=[f"{NAME}=0.01"]).regularizers[NAME].start == 0.01
    assert training(fix=[f"{NAME}=0.02"]).regularizers[NAME].value == 0.02
    file = tmp_path / "run.yaml"
    file.write_text(f"regularizers: {{{NAME}: }}")
    assert training(file).learned == [NAME]
    assert NAME in shown(train.app, "--learn", "list")


@pytest.mark.usefixtures("added")
@pytest.mark.parametrize("search", SEARCHES)
def test_a_regularizer_is_searched(search: str) -> None:
    if search == "optuna":
        pytest.importorskip("optuna")
    conditions = conditions_of(["noise", NAME])
    for values in looked_through(request_of(search, conditions)):
        assert 1e-5 * 0.999 <= values[NAME] <= 1e-1 * 1.001


@pytest.mark.usefixtures("added")
def test_a_regularizer_is_recorded_replayed_and_reported(tmp_path: Path) -> None:
    conditions = conditions_of({"noise": None, NAME: {"start": 0.01}})
    learned = trained(asked(CrossReg(), conditions), conditions, tmp_path / "learned")
    recorded = [hyperparameters_in(values) for _, _, values in learned.final.metrics]
    assert any(NAME in values for values in recorded)
    schedule = schedule_of(learned.lineage)
    spec = asked(Replay(Source("abc", "crossreg", learned.spec.config, schedule, {})), conditions)
    replayed = trained(spec, conditions, tmp_path / "replayed")
    assert replayed.final.hyperparameters[NAME] == pytest.approx(schedule[-1][1][NAME], rel=1e-4)
    outcomes = [
        outcome_of([trial], trial.final, method=method, budget="matched", seed=0)
        for method, trial in (("crossreg", learned), ("none", replayed))
    ]
    assert NAME in outcomes[0].learned
    context = Context(title="t", model="mlp", data="digits", num_train=1, num_reg=1, num_test=1, population=3)
    drawn = schedules(group_outcomes(outcomes), summarize(outcomes, context))
    assert drawn is not None
    assert any(NAME in axes.get_ylabel() for axes in drawn.axes)
    assert write_report(outcomes, context, tmp_path / "report").html.exists()
    history = {f"regularizers/{NAME}": ([1, 2], [0.1, 0.2])}
    assert any(NAME in axes.get_ylabel() for axes in figures.hyperparameter_trajectories(history).axes)


@pytest.mark.usefixtures("added")
def test_a_stopping_rule_is_a_flag_a_key_and_ends_trainings_and_trials(tmp_path: Path) -> None:
    assert training(stop="good_enough=2", schedule="cosine").stopping == {"good_enough": 2.0}
    conditions = conditions_of(["noise"], stopping={"good_enough": 100.0})
    trainer = build_trainer(conditions.reference(0), conditions.data(0), CPU)
    trainer.fit()
    assert trainer.step == 6  # of 12: the first evaluation
    assert "good_enough" in result_of(trainer).stopped


@pytest.mark.usefixtures("added")
def test_a_baseline_is_listed_and_compared(tmp_path: Path) -> None:
    assert "heavy-decay" in shown(compare.app, "--methods", "list")
    conditions = conditions_of(["noise"])
    config = CompareConfig(training=conditions.config, methods=("crossreg", "heavy-decay"), seeds=1)
    job = jobs_of(config, METHODS)[1]
    trial = trained(asked(job.method, conditions), conditions, tmp_path)
    assert trial.final.hyperparameters["weight_decay"] == pytest.approx(0.1)
