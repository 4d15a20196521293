"""Stopping early: the rule, and what a training does that a callback ends."""

from __future__ import annotations

import copy
import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg import (
    Batches,
    Callback,
    EvaluationPlan,
    Patience,
    SaveCheckpoint,
    Stop,
    StopByRule,
    StoppingRule,
    Trainer,
    UserError,
    load_checkpoint,
)
from crossreg.core import metrics
from crossreg.training.rules import RULES, stopping_rule
from tests.crossreg.conftest import small_model
from tests.crossreg.training.test_trainer import Record, assert_equal, data, trainer

INF = math.inf


@pytest.mark.parametrize(
    ("scores", "stops"),
    [
        ([], False),
        ([1.0], False),
        ([1.0, 1.1], False),
        ([1.0, 1.1, 1.2], True),
        ([1.0, 1.0, 1.0], True),  # as good is no better
        ([1.0, 1.1, 0.9], False),
        ([1.0, 1.1, 0.9, 0.95], False),
        ([1.0, 1.1, 0.9, 0.95, 0.9], True),
        ([3.0, 2.0, 1.0], False),
        ([INF, INF], False),
        ([INF, INF, INF], True),
        ([INF, INF, 5.0], False),
        ([1.0, INF, INF], True),
    ],
)
def test_patience_ends_after_so_many_without_a_better_one(scores: list[float], stops: bool) -> None:
    assert Patience(2).should_stop(scores) is stops


def test_patience_of_one_ends_at_the_first_that_is_not_better() -> None:
    assert [Patience(1).should_stop([3.0, 2.0, 2.5][:n]) for n in range(4)] == [False, False, False, True]


def test_rules_by_name() -> None:
    assert set(RULES) == {"patience"}
    assert stopping_rule({}) is None
    rule = stopping_rule({"patience": 3})
    assert isinstance(rule, Patience)
    assert rule.value == 3
    assert isinstance(Patience(2.0).value, int)


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: Patience(0), "patience is 0; it must be a number of evaluations, at least 1"),
        (lambda: Patience(-2), "patience is -2"),
        (lambda: Patience(1.5), "patience is 1.5"),
        (lambda: Patience(True), "patience is True"),
        (lambda: Patience(math.inf), "patience is inf"),
        (lambda: Patience(math.nan), "patience is nan"),
        (lambda: stopping_rule({"patience": 0}), "patience is 0"),
        (lambda: stopping_rule({"patince": 3}), "'patince'; did you mean 'patience'.; there are patience"),
        (lambda: stopping_rule({"patience": 3, "other": 1}), "names patience, other; give one rule"),
    ],
)
def test_mistakes_are_named(wrong: Any, words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()


class After(StoppingRule):
    """Ends after so many evaluations."""

    name, help = "after", "evaluations"

    def should_stop(self, scores: Sequence[float]) -> bool:
        return len(scores) >= self.value


class Interrupt(Callback):
    """Stops a training at a step, to go on later."""

    def __init__(self, step: int) -> None:
        self.step = step

    def should_stop(self, trainer: Trainer) -> Stop | None:
        return Stop("asked to", finished=False) if trainer.step == self.step else None


class Ends(Callback):
    """Counts what is told of the end."""

    def __init__(self) -> None:
        self.steps: list[int] = []
        self.ended: list[bool] = []

    def on_step(self, trainer: Trainer) -> None:
        self.ended.append(trainer.ended)

    def on_end(self, trainer: Trainer) -> None:
        self.steps.append(trainer.step)


def planned(*callbacks: Callback, steps: int = 40, **plan: Any) -> Trainer:
    """Return a training that is evaluated on half of each split every 10 steps, with 2 draws."""
    run = trainer(steps, callbacks)
    given = run.evaluation.splits
    splits = {name: Batches(split.x, split.y, 16, shuffle=False) for name, split in given.items()}
    half = {
        name: Batches(split.x[: len(split.x) // 2], split.y[: len(split.y) // 2], 16, shuffle=False)
        for name, split in given.items()
    }
    run.evaluation = EvaluationPlan(splits=splits, interim=half, every=10, samples=2, final_samples=5, **plan)
    return run


def keys_by_step(record: Record) -> Counter[tuple[int, str]]:
    return Counter((step, key) for step, values in record.values for key in values)


@pytest.mark.parametrize("whole_at_end", [True, False])
def test_it_ends_early_with_a_whole_evaluation(whole_at_end: bool) -> None:
    record, ends = Record(), Ends()
    run = planned(StopByRule(After(2)), record, ends, whole_at_end=whole_at_end, selection={"reg"})
    latest = run.fit()
    assert run.step == 20
    assert run.ended
    assert run.stopped is not None
    assert run.stopped.finished
    assert run.stopped.reason == f"after 2: after 2 evaluations the held-out NLL is {run.held_out[1]:.4g}"
    assert ends.steps == [20]
    assert ends.ended == [False] * 19 + [True]
    for name, whole in run.evaluation.splits.items():
        assert run.evaluated[name].passes == 5 * len(whole.x)
        assert len(run.evaluated[name].targets) == len(whole.x)
        assert {f"{name}/{key}": value for key, value in run.evaluated[name].scores.items()}.items() <= latest.items()
    assert run.ledger is not None
    # at step 10 and 20 half a split with 2 draws, at 20 the whole with 5
    assert run.ledger.examples["selection"] == 2 * 2 * 16 + 5 * 32
    assert run.ledger.examples["report"] == 2 * 2 * 24 + 5 * 48
    # both evaluations of step 20 would say the same keys; told is the final one, once
    assert set(keys_by_step(record).values()) == {1}
    assert {step for step, key in keys_by_step(record) if key == "test/nll"} == {10, 20}
    told = dict(next(values for step, values in record.values if step == 20))
    assert told.items() <= latest.items()
    assert told["test/nll"] == run.evaluated["test"].scores["nll"]
    assert told["train/loss"] == latest["train/loss"]
    assert told[metrics.EPOCH] == 20 / 6
    # the rule looked at what all evaluations have in common: half of the split
    assert len(run.held_out) == 2
    assert run.held_out[1] != latest["reg/nll"]


def test_a_run_to_its_last_step_was_not_stopped() -> None:
    record, ends = Record(), Ends()
    run = planned(StopByRule(After(4)), record, ends)
    run.fit()
    assert run.step == 40
    assert run.stopped is None
    assert run.ended
    assert ends.steps == [40]
    assert set(keys_by_step(record).values()) == {1}
    assert len(run.held_out) == 4


def test_patience_ends_a_training_that_stands_still() -> None:
    model = small_model("layer")
    train, reg = Batches(*data(96, 1), 16), Batches(*data(32, 2), 16)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = Trainer(
        model,
        "classification",
        optimizer,
        train,
        steps=100,
        evaluation=EvaluationPlan(splits={"reg": reg}, every=5),
        callbacks=[StopByRule(Patience(3))],
    )
    run.fit()
    assert run.step == 20  # the first is the best
    assert len(set(run.held_out)) == 1
    assert run.stopped == Stop(
        f"patience 3: the held-out NLL was best, {run.held_out[0]:.4g}, 3 evaluations ago", finished=True
    )


def test_a_model_that_diverged_counts_as_worst() -> None:
    model = small_model("layer")
    model[6].bias.data.fill_(math.nan)
    reg = Batches(*data(32, 2), 16)
    run = Trainer(
        model,
        "classification",
        torch.optim.SGD(model.parameters(), lr=0.0),
        reg,
        steps=100,
        evaluation=EvaluationPlan(splits={"reg": reg}, every=5),
        callbacks=[StopByRule(Patience(2))],
    )
    run.fit()
    assert run.held_out == [INF, INF, INF]
    assert run.step == 15


def test_an_interruption_does_no_final_evaluation() -> None:
    record, ends = Record(), Ends()
    run = planned(Interrupt(17), StopByRule(After(3)), record, ends)
    latest = run.fit()
    assert run.step == 17
    assert run.stopped == Stop("asked to", finished=False)
    assert run.ended
    assert ends.steps == []
    assert ends.ended == [False] * 16 + [True]
    assert run.evaluated["test"].passes == 2 * 24  # that of step 10
    assert latest == run.latest
    assert {step for step, key in keys_by_step(record) if key == "test/nll"} == {10}
    assert max(step for step, key in keys_by_step(record) if key == "train/loss") == 16  # the window goes on
    at_once = planned(Interrupt(1))
    at_once.fit()
    assert at_once.evaluated == {}


def test_the_first_callback_that_says_so_counts() -> None:
    run = planned(Interrupt(20), StopByRule(After(2)))
    run.fit()
    assert run.stopped == Stop("asked to", finished=False)
    run = planned(StopByRule(After(2)), Interrupt(20))
    run.fit()
    assert run.stopped is not None
    assert run.stopped.finished


@pytest.mark.parametrize("stop", [7, 10, 14, 20, 29, 30])
def test_scores_and_decision_survive_an_interruption_exactly(stop: int) -> None:
    """Also one at the very step at which the rule says so: the run ends there when it goes on."""
    whole = planned(StopByRule(After(3)), steps=60)
    whole.fit()
    assert whole.step == 30
    first = planned(Interrupt(stop), StopByRule(After(3)), steps=60)
    first.fit()
    assert first.step == stop
    state = copy.deepcopy(first.state_dict())
    torch.manual_seed(99)
    resumed = planned(StopByRule(After(3)), steps=60)
    resumed.load_state_dict(state)
    assert resumed.held_out == first.held_out
    assert resumed.stopped is None
    resumed.fit()
    assert resumed.step == 30
    assert resumed.held_out == whole.held_out
    assert resumed.stopped == whole.stopped
    assert {name: e.scores for name, e in resumed.evaluated.items()} == {
        name: e.scores for name, e in whole.evaluated.items()
    }
    assert_equal(dict(resumed.model.state_dict()), dict(whole.model.state_dict()))
    apart = {metrics.compute("worker_seconds"), metrics.COMPUTE_PEAK_MEMORY}
    if stop == 30:  # no step follows, so the losses since step 28 are told nowhere
        apart |= {"train/loss", "train/accuracy", metrics.EPOCH, metrics.LEARNING_RATE}
    told = [{key: value for key, value in run.latest.items() if key not in apart} for run in (whole, resumed)]
    assert told[0] == told[1]


def test_what_ended_does_not_train_on_when_it_is_restored(tmp_path: Path) -> None:
    run = planned(StopByRule(After(2)), SaveCheckpoint(tmp_path, 1000))
    latest = run.fit()
    weights = copy.deepcopy(run.model.state_dict())
    ends = Ends()
    again = planned(StopByRule(After(2)), ends)
    again.load_state_dict(load_checkpoint(tmp_path))
    found = again.fit()
    assert again.step == 20
    assert again.stopped == run.stopped
    assert ends.steps == [20]
    assert ends.ended == []
    assert_equal(dict(again.model.state_dict()), dict(weights))
    assert {k: v for k, v in found.items() if "/nll" in k} == {k: v for k, v in latest.items() if "/nll" in k}
    longer = planned(StopByRule(After(3)))  # more patience goes on from there
    longer.load_state_dict(load_checkpoint(tmp_path))
    longer.fit()
    assert longer.step == 30
