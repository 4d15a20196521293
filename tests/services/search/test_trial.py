from __future__ import annotations

import math
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg import Callback, UserError, load_checkpoint
from crossreg.regularizers.registry import get_hyperparameters
from crossreg.services.search.spec import Record, TrialSpec, Values
from crossreg.services.search.trial import States, Trial, read_predictions
from crossreg.services.training.assemble import build_trainer
from crossreg.training.checkpoint import CHECKPOINT_FILE
from crossreg.training.trainer import Trainer
from tests.crossreg.training.test_trainer import assert_equal
from tests.services.search.conftest import MakeTrial
from tests.services.search.population import LEARNED, SIGMA, digits, sigma, spec

ROOT = Path(__file__).resolve().parents[3]
CLOCKS = ("latest", "worker_seconds", "seconds")


def run(trial: Trial, intervals: int | None = None) -> list[Record]:
    records = []
    while trial.step < trial.spec.steps and len(records) != intervals:
        records.append(trial.advance())
    return records


def saved(states: States, record: Record) -> dict[str, Any]:
    """Return the training state behind a record, without what a clock decides."""
    content = load_checkpoint(states.checkpoint(record.state))["trainer"]
    return {key: value for key, value in content.items() if key not in CLOCKS}


def begun(states: States) -> list[int]:
    return sorted(path.stat().st_size for path in states.folder.glob("*.begun"))


def timeless(record: Record) -> dict[str, Any]:
    return record.model_dump(include={"state", "parent", "spec", "until", "given", "hyperparameters", "scores"})


class Counted(Trial):
    """Counts what it trains."""

    trained = 0

    def _train(self, state: str, until: int) -> Record:
        self.trained += 1
        return super()._train(state, until)


METHODS: dict[str, dict[str, Any]] = {
    "crossreg": {"regularizers": LEARNED},
    "dropout": {"regularizers": {"dropout": 0.2}},
    "uneven": {"steps": 38},
}


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("restored", [False, True], ids=["in memory", "from disk"])
def test_intervals_are_one_training(method: str, restored: bool, states: States, trial_of: MakeTrial) -> None:
    """Bit for bit in weights, optimizers, random states and scores, with every boundary restored or none."""
    whole_spec = spec(**METHODS[method])
    whole = build_trainer(whole_spec.config, digits(), torch.device("cpu"), selection=("reg",))
    whole.fit()
    expected = {key: value for key, value in whole.state_dict().items() if key not in CLOCKS}
    trial, records = trial_of(whole_spec), []
    for _ in range(4):
        records.append(trial.advance())
        torch.manual_seed(99)  # what else draws in this process
        if restored:
            trial = trial_of(whole_spec)
            trial.continue_from(records[-1].state, {})
    assert [record.until for record in records] == [10, 20, 30, whole_spec.steps]
    assert_equal(saved(states, records[-1]), expected)
    assert records[-1].scores == {split: result.scores for split, result in whole.evaluated.items()}
    predictions = read_predictions(states, records[-1].state)
    assert torch.equal(predictions["test"]["mean"], whole.evaluated["test"].mean)
    assert whole.ledger is not None
    assert sum(record.cost.examples for record in records) == whole.ledger.as_metrics()["usage/examples"]
    # every step's metrics are said once
    steps = [step for record in records for step, _, values in record.metrics if "train/loss" in values]
    assert steps == list(range(1, whole_spec.steps + 1))


def test_a_done_interval_is_not_trained_again(states: States, trial_of: MakeTrial) -> None:
    whole = spec()
    first = trial_of(whole, kind=Counted)
    first.continue_from(None, sigma(0.5))
    records = run(first, 3)
    again = trial_of(whole, kind=Counted)
    again.continue_from(None, sigma(0.5))
    assert run(again, 3) == records
    assert (first.trained, again.trained) == (3, 0)  # type: ignore[attr-defined]
    assert begun(states) == [1, 1, 1]
    last = again.advance()
    assert again.trained == 1  # type: ignore[attr-defined]
    assert (last.parent, last.until) == (records[-1].state, 40)
    other = trial_of(whole, kind=Counted)
    other.continue_from(None, sigma(0.51))
    assert other.advance().state not in {record.state for record in records}
    assert other.trained == 1  # type: ignore[attr-defined]


def test_what_only_ends_or_places_a_trial_is_not_part_of_its_name() -> None:
    one = spec()
    moved = one.config.data.model_copy(update={"root": Path("/elsewhere"), "download": True})
    same = one.model_copy(update={"config": one.config.model_copy(update={"data": moved, "stopping": {"patience": 3}})})
    assert TrialSpec.model_validate(same.model_dump()).digest == one.digest
    assert spec(seed=1).digest != one.digest
    assert spec(select=False).digest != one.digest
    assert spec(schedule=[(0, sigma(1.0))]).digest != one.digest


@pytest.mark.parametrize("live", [True, False], ids=["in memory", "from disk"])
def test_the_given_value_wins_over_the_checkpoint(live: bool, states: States, trial_of: MakeTrial) -> None:
    """What is in a checkpoint is the donor's: ray#62173, ray#36660."""
    options = {"model_options": {"hidden": 32, "depth": 2, "dropout": 0.2}}
    old: Values = {**sigma(0.3, 0.4), "weight_decay": 0.02, "dropout": 0.1}
    new: Values = {**sigma(1.5, 2.5), "weight_decay": 0.5, "dropout": 0.7}
    trial = trial_of(spec(**options))
    trial.continue_from(None, old)
    donor = trial.advance()
    content = load_checkpoint(states.checkpoint(donor.state))["trainer"]
    assert content["optimizer"]["param_groups"][0]["weight_decay"] == 0.02  # there is something to win over
    if not live:
        trial = trial_of(spec(**options))
    trial.continue_from(donor.state, new)
    record = trial.advance()
    assert record.given == new
    assert {name: record.hyperparameters[name] for name in new} == pytest.approx(new)
    content = load_checkpoint(states.checkpoint(record.state))["trainer"]
    assert {group["weight_decay"] for group in content["optimizer"]["param_groups"]} == {0.5}
    # and it was in force while it trained, not only written down: with the old ones the weights are others
    kept = trial_of(spec(**options))
    kept.continue_from(donor.state, old)
    same = saved(states, kept.advance())["model"]
    assert not torch.equal(same["linear2.weight"], content["model"]["linear2.weight"])


def test_optimizer_and_schedule_follow_the_weights(states: States, trial_of: MakeTrial) -> None:
    """Adam's moments, the learning rate and the random streams come from the donor too."""
    donor, exploiting = trial_of(spec(seed=0)), trial_of(spec(seed=1))
    donor.continue_from(None, sigma(0.3))
    exploiting.continue_from(None, sigma(3.0))
    given, own = run(donor, 2)[-1], exploiting.advance()
    exploiting.continue_from(given.state, sigma(0.36))
    trainer = exploiting.trainer_at(given.state)
    theirs, mine = saved(states, given), saved(states, own)
    state = trainer.state_dict()
    for part in ("model", "optimizer", "scheduler", "step", "ranks"):
        assert_equal(state[part], theirs[part])
    moments = theirs["optimizer"]["state"]
    assert any(values["exp_avg_sq"].abs().sum() > 0 for values in moments.values())
    assert not torch.equal(moments[0]["exp_avg"], mine["optimizer"]["state"][0]["exp_avg"])
    record = exploiting.advance()
    assert (record.parent, record.until, record.spec) == (given.state, 30, spec(seed=1).digest)
    assert trainer.ledger is not None
    assert record.cost.backward_examples == 10 * 32  # what the donor trained is the donor's cost


@pytest.mark.parametrize("damage", ["deleted", "truncated", "empty folder"])
def test_a_lost_checkpoint_is_trained_again_from_its_parent(damage: str, states: States, trial_of: MakeTrial) -> None:
    """A search must not hang or die on it: ray#9036. The donor's own settings count, not the exploiting member's."""
    donor, exploiting = trial_of(spec(seed=0)), trial_of(spec(seed=1))
    records: list[Record] = []
    for value in (0.3, 0.4, 0.5):
        donor.continue_from(records[-1].state if records else None, sigma(value))
        records.append(donor.advance())
    expected = saved(states, records[-1])
    for record in records[1:]:  # its parent's is lost as well; the first is there
        file = states.checkpoint(record.state) / CHECKPOINT_FILE
        if damage == "truncated":
            file.write_bytes(file.read_bytes()[:1000])
        elif damage == "empty folder":
            file.unlink()
        else:
            states.forget(record.state)
            assert not states.checkpoint(record.state).exists()
    exploiting.continue_from(records[-1].state, sigma(0.9))
    trainer = exploiting.trainer_at(records[-1].state)
    found = trainer.state_dict()
    for part in ("model", "optimizer", "scheduler", "step", "ranks"):
        assert_equal(found[part], expected[part])
    assert exploiting.advance().until == 40
    assert begun(states) == [1, 1, 2, 2]


def test_a_state_that_nobody_knows_is_named(states: States, trial_of: MakeTrial) -> None:
    trial = trial_of(spec())
    with pytest.raises(UserError, match="no checkpoint at"):
        trial.trainer_at("0123456789abcdef")
    with pytest.raises(FileNotFoundError, match="no record of state 0123456789abcdef"):
        states.lineage("0123456789abcdef")


DYING = """
import os, signal, sys
from pathlib import Path
import torch
from crossreg import Callback
from crossreg.services.search.trial import States, Trial
from tests.services.search.population import digits, sigma, spec

torch.set_num_threads(1)

class Kill(Callback):
    def on_step(self, trainer):
        if trainer.step == 15:
            os.kill(os.getpid(), signal.SIGKILL)

class Dying(Trial):
    def trainer_at(self, state):
        trainer = super().trainer_at(state)
        trainer.callbacks.append(Kill())
        return trainer

trial = Dying(spec(), {}, {spec().data: digits()}, States(Path(sys.argv[1])))
trial.continue_from(None, sigma(0.5))
trial.advance()
trial.advance()
"""


def test_a_killed_interval_is_trained_and_charged_again(states: States, trial_of: MakeTrial, tmp_path: Path) -> None:
    killed = subprocess.run(
        [sys.executable, "-c", DYING, str(states.folder)], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert killed.returncode == -signal.SIGKILL, killed.stderr
    assert begun(states) == [1, 1]
    assert len(list(states.folder.glob("*.json"))) == 1
    trial = trial_of(spec(), kind=Counted)
    trial.continue_from(None, sigma(0.5))
    first, second = run(trial, 2)
    assert trial.trained == 1  # type: ignore[attr-defined]
    assert begun(states) == [1, 2]
    undisturbed = Trial(spec(), {}, {spec().data: digits()}, States(tmp_path / "other"))
    undisturbed.continue_from(None, sigma(0.5))
    one, two = run(undisturbed, 2)
    assert (timeless(first), timeless(second)) == (timeless(one), timeless(two))
    assert first.cost.examples == one.cost.examples
    assert second.cost.examples == 2 * two.cost.examples
    assert second.cost.flops == 2 * two.cost.flops
    assert_equal(saved(states, second), saved(undisturbed.states, two))


def test_pruning_leaves_the_newest_two_and_the_best(states: States, trial_of: MakeTrial) -> None:
    trial = trial_of(spec(steps=60, evaluations=6), keep=2)
    trial.continue_from(None, sigma(0.1))
    best = run(trial, 3)[-1]
    trial.continue_from(best.state, sigma(100.0))  # from here on it gets worse
    worse = run(trial)
    scores = [record.score("reg", "nll") for record in worse]
    assert best.score("reg", "nll") < min(scores)

    def kept() -> set[str]:
        return {path.name for path in states.folder.iterdir() if path.is_dir()}

    assert kept() == {best.state, *(record.state for record in worse[-2:])}
    assert len(list(states.folder.glob("*.json"))) == 6  # records stay
    states.keep_only({best.state})
    assert kept() == {best.state}


def test_a_lineage_follows_the_exploits(states: States, trial_of: MakeTrial) -> None:
    donor, exploiting = trial_of(spec(seed=0)), trial_of(spec(seed=1))
    donor.continue_from(None, sigma(0.3))
    exploiting.continue_from(None, sigma(3.0))
    theirs, own = run(donor, 2), run(exploiting, 2)
    exploiting.continue_from(theirs[-1].state, sigma(0.24))
    after = exploiting.advance()
    assert states.lineage(after.state) == [*theirs, after]
    assert after.parent != own[-1].state
    assert states.lineage(None) == []


class See(Callback):
    """Keeps the values that are in force in every step, read while it computes."""

    def __init__(self) -> None:
        self.seen: dict[int, Values] = {}

    def watch(self, trainer: Trainer) -> None:
        trainer.model.register_forward_pre_hook(lambda *_: self._note(trainer))

    def _note(self, trainer: Trainer) -> None:
        if trainer.model.training:
            self.seen[trainer.step] = get_hyperparameters(trainer.model, trainer.optimizer)


@pytest.mark.parametrize("restored", [False, True], ids=["in memory", "from disk"])
def test_a_schedule_sets_values_exactly_at_its_steps(restored: bool, states: States, trial_of: MakeTrial) -> None:
    """Step s is after s steps: the next one, whose number from zero is s, is the first with the value."""
    schedule: list[tuple[int, Values]] = [
        (0, {**sigma(0.5), "dropout": 0.3}),
        (7, sigma(0.6)),
        (10, {SIGMA[1]: 0.7}),  # at a boundary
        (25, {**sigma(0.8), "weight_decay": 0.3}),
    ]
    expected: list[Values] = []
    for step in range(40):
        expected.append({**(expected[-1] if expected else {"weight_decay": 0.01}), **dict(schedule).get(step, {})})
    see = See()

    class Seen(Trial):
        def trainer_at(self, state: str | None) -> Trainer:
            known = None if self._live is None else self._live[1]
            trainer = super().trainer_at(state)
            if trainer is not known:
                see.watch(trainer)
            return trainer

    whole = spec(schedule=schedule, model_options={"hidden": 32, "depth": 2, "dropout": 0.1})
    trial = trial_of(whole, kind=Seen)
    for _ in range(4):
        state = trial.advance().state
        if restored:
            trial = trial_of(whole, kind=Seen)
            trial.continue_from(state, {})
    assert sorted(see.seen) == list(range(40))
    for step, values in enumerate(expected):
        assert {name: see.seen[step][name] for name in values} == pytest.approx(values), step
    straight = build_trainer(whole.config, digits(), torch.device("cpu"))
    straight.fit()
    assert not torch.equal(straight.model.state_dict()["linear2.weight"], saved_model(states, state)["linear2.weight"])


def saved_model(states: States, state: str) -> dict[str, torch.Tensor]:
    model: dict[str, torch.Tensor] = load_checkpoint(states.checkpoint(state))["trainer"]["model"]
    return model


def test_a_diverged_trial_leaves_records_that_lose(states: States, trial_of: MakeTrial) -> None:
    trial = trial_of(spec(optimizer={"lr": 1e30}))
    trial.continue_from(None, sigma(0.5))
    records = run(trial)
    assert len(records) == 4
    assert math.isnan(records[-1].scores["reg"]["nll"])
    for name in ("nll", "accuracy", "no such score"):
        assert records[-1].score("reg", name) == math.inf
    read = states.record(records[-1].state)
    assert read is not None
    assert read.model_dump_json() == records[-1].model_dump_json()
    assert read.score("reg", "nll") == math.inf
