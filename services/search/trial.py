"""A trial that is advanced interval by interval, each interval done once and remembered on disk.

A training state has an id that says how it came about: the trial's specification, the state it started from and
the hyperparameters set since. The record of an interval is a small JSON file under that id, the state itself a
checkpoint beside it. An interval whose record is there is not trained again. Everything that a search needs follows
from it: a search that was killed is run again and finds its finished intervals done; exploiting another trial is
to go on from its state with other values; and the way to any state is the schedule that a replay repeats.
"""

from __future__ import annotations

import os
import shutil
import time
from pathlib import Path
from typing import Any

import torch

from crossreg.core.errors import UserError
from crossreg.core.metrics import hyperparameters_in
from crossreg.core.random import rng_state, set_rng_state
from crossreg.regularizers.registry import get_hyperparameters, set_hyperparameters
from crossreg.services.data import Dataset
from crossreg.services.search.spec import Record, Schedule, TrialSpec, Values, digest
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.result import Predictions, predictions_of
from crossreg.training.callback import Callback
from crossreg.training.checkpoint import load_checkpoint, save_checkpoint
from crossreg.training.trainer import Trainer

__all__ = ["States", "Trial", "read_predictions", "schedule_of"]


class States:
    """The states and records of the trials that may go on from one another, in one folder.

    Args:
        folder: created where missing; on a cluster, one that all machines share.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)

    def record(self, state: str) -> Record | None:
        """Return the record that ends in a state, None where there is none."""
        try:
            return Record.model_validate_json((self.folder / f"{state}.json").read_bytes())
        except FileNotFoundError:
            return None

    def write(self, record: Record) -> None:
        """Write a record, complete or not at all."""
        path = self.folder / f"{record.state}.json"
        draft = path.with_suffix(f".{os.getpid()}.tmp")
        draft.write_text(record.model_dump_json())
        draft.replace(path)

    def begin(self, state: str) -> int:
        """Count a beginning of the interval that ends in a state; return how many there were."""
        path = self.folder / f"{state}.begun"
        with path.open("ab") as file:
            file.write(b".")
        return path.stat().st_size

    def checkpoint(self, state: str) -> Path:
        """Return the folder of a state's checkpoint, whether there or not."""
        return self.folder / state

    def lineage(self, state: str | None) -> list[Record]:
        """Return the records that led to a state, first to last; another trial's where one was exploited."""
        records: list[Record] = []
        while state is not None:
            record = self.record(state)
            if record is None:
                raise FileNotFoundError(f"no record of state {state} in {self.folder}")
            records.insert(0, record)
            state = record.parent
        return records

    def forget(self, state: str) -> None:
        """Delete a state's checkpoint; its record stays."""
        shutil.rmtree(self.checkpoint(state), ignore_errors=True)

    def keep_only(self, kept: set[str]) -> None:
        """Delete all checkpoints but some."""
        for path in self.folder.iterdir():
            if path.is_dir() and path.name not in kept:
                self.forget(path.name)


class Trial:
    """One training of a search, in this process.

    Args:
        spec: what is trained.
        specs: by digest, all trials whose states this one may be told to go on from.
        data: by fingerprint.
        states: where states and records are.
        keep: how many of its newest states it leaves on disk, beside the best; None leaves all.
        device: where to train.

    Attributes:
        state: id of the state it is in; None is the beginning.
        given: values of hyperparameters that are set from here on.
    """

    def __init__(
        self,
        spec: TrialSpec,
        specs: dict[str, TrialSpec],
        data: dict[str, Dataset],
        states: States,
        keep: int | None = 2,
        device: torch.device | None = None,
    ) -> None:
        self.spec, self.specs, self.data, self.states = spec, specs, data, states
        self.keep, self.device = keep, device or torch.device("cpu")
        self.state: str | None = None
        self.given: Values = {}
        self._mine: list[str] = []
        self._best: tuple[float, str | None] = (float("inf"), None)
        self._live: tuple[str, Trainer, dict[str, Any]] | None = None
        self._seen = _Seen()

    def continue_from(self, state: str | None, values: Values) -> None:
        """Go on from a state, a trial's own or another's, with these values set."""
        self.state, self.given = state, dict(values)

    @property
    def step(self) -> int:
        """Theta steps done."""
        record = None if self.state is None else self.states.record(self.state)
        return 0 if record is None else record.until

    def advance(self) -> Record:
        """Train one interval, or find it done, and return its record."""
        until = min(self.step + self.spec.interval, self.spec.steps)
        state = digest([self.spec.digest, self.state, self.given, until])
        record = self.states.record(state)
        if record is None:
            record = self._train(state, until)
            self.states.write(record)
        self.state = state
        self._prune(record)
        return record

    def _train(self, state: str, until: int) -> Record:
        began, times = time.time(), self.states.begin(state)
        trainer = self.trainer_at(self.state)
        set_hyperparameters(
            trainer.model, trainer.optimizer, self.given
        )  # after the checkpoint, whose values they replace
        self._seen.values.clear()
        assert trainer.ledger is not None
        before = trainer.ledger.cost
        trainer.advance(until)
        cost = trainer.ledger.cost - before
        content = {"trainer": trainer.state_dict(), "predictions": predictions_of(trainer)}
        save_checkpoint(content, self.states.checkpoint(state), spec=self.spec.digest)
        self._live = (state, trainer, rng_state())
        before_it = None if self.state is None else self.states.record(self.state)
        scores = {split: result.scores for split, result in trainer.evaluated.items()}
        if not scores and before_it is not None:  # checks may lie further apart than intervals
            scores = before_it.scores
        return Record(
            state=state,
            parent=self.state,
            spec=self.spec.digest,
            until=trainer.step,
            last=trainer.ended,
            given=self.given,
            hyperparameters=get_hyperparameters(trainer.model, trainer.optimizer),
            scores=scores,
            metrics=list(self._seen.values),
            cost=cost * times,
            peak_memory_bytes=trainer.ledger.peak_memory_bytes,
            began=began,
            ended=time.time(),
        )

    def trainer_at(self, state: str | None) -> Trainer:
        """Return the training in a state: the one in memory, or a fresh one with the checkpoint loaded."""
        if self._live is not None and self._live[0] == state:
            set_rng_state(self._live[2])
            return self._live[1]
        self._live = None
        content = None if state is None else self._load(state)
        split = ("reg",) if self.spec.select else ()
        trainer = build_trainer(
            self.spec.config.without_stopping, self.data[self.spec.data], self.device, [self._seen], selection=split
        )
        if self.spec.schedule is not None:
            trainer.callbacks.insert(0, _Scheduled(self.spec.schedule))
        if content is not None:
            trainer.load_state_dict(content["trainer"])
        trainer.start()
        return trainer

    def _load(self, state: str) -> dict[str, Any]:
        """Return a state's checkpoint; one that was deleted or damaged is trained again from where it came from."""
        try:
            return load_checkpoint(self.states.checkpoint(state))
        except UserError:
            record = self.states.record(state)
            if record is None or record.spec not in self.specs:
                raise
        again = Trial(self.specs[record.spec], self.specs, self.data, self.states, None, self.device)
        again.continue_from(record.parent, record.given)
        again._train(state, record.until)
        return load_checkpoint(self.states.checkpoint(state))

    def _prune(self, record: Record) -> None:
        """Leave the newest states, which others may go on from, and the best."""
        if self.keep is None:
            return
        if record.score("reg", "nll") < self._best[0]:
            self._best = (record.score("reg", "nll"), record.state)
        self._mine = [state for state in self._mine if state != record.state] + [record.state]
        for state in self._mine[: -self.keep]:
            if state != self._best[1]:
                self.states.forget(state)


class _Seen(Callback):
    """Keeps what the loop says."""

    def __init__(self) -> None:
        self.values: list[tuple[int, int, dict[str, float]]] = []

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Keep metrics with step and time."""
        self.values.append((trainer.step, time.time_ns() // 1_000_000, values))


class _Scheduled(Callback):
    """Sets hyperparameters at the steps of a schedule."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = sorted(schedule, key=lambda entry: entry[0])

    def on_start(self, trainer: Trainer) -> None:
        """Set what is in force at the first step."""
        # all of them, not the latest alone: an entry may name some, and a checkpoint holds no dropout
        due: Values = {}
        for step, values in self.schedule:
            if step <= trainer.step:
                due |= values
        set_hyperparameters(trainer.model, trainer.optimizer, due)

    def on_step(self, trainer: Trainer) -> None:
        """Set what comes into force after this step."""
        for step, values in self.schedule:
            if step == trainer.step:
                set_hyperparameters(trainer.model, trainer.optimizer, values)


def read_predictions(states: States, state: str) -> Predictions:
    """Return the averaged predictions `mean` and `targets` of a state's splits."""
    return dict(load_checkpoint(states.checkpoint(state))["predictions"])


def schedule_of(lineage: list[Record]) -> Schedule:
    """Return the values that led to a state, by the step after which they came into force.

    Those that were set are in force from the start of their interval; those that were learned, from each update on.
    """
    schedule: Schedule = []
    start = 0
    for record in lineage:
        learned = [(step, values) for step, _, said in record.metrics if (values := hyperparameters_in(said))]
        if record.given or not learned:
            schedule.append((start, record.given or record.hyperparameters))
        schedule.extend(learned)
        start = record.until
    return schedule
