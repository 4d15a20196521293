"""Training again with regularization that was learned or found before: the certificate that it carries over."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.core.metrics import hyperparameter, hyperparameters_in
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method, Run, Trials
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.search.budget import Budget
from crossreg.services.search.spec import Schedule, Values
from crossreg.services.tracking import TrackingConfig
from crossreg.services.tracking.params import from_tags
from crossreg.services.tracking.resume import metric_history, read_artifact, run_tags
from crossreg.services.training.config import TrainConfig

__all__ = ["Replay", "Source", "Verdict", "find_source", "verdicts"]


@dataclass(frozen=True)
class Source:
    """An earlier run whose regularization is replayed.

    Attributes:
        run_id: the MLflow run.
        method: what made it.
        config: what was trained.
        schedule: values of hyperparameters by step.
        test: its scores on the test split.
    """

    run_id: str
    method: str
    config: TrainConfig
    schedule: Schedule
    test: dict[str, float]

    @property
    def frozen(self) -> Schedule:
        """The last value of each, from the first step on."""
        values: Values = {}
        for _, said in self.schedule:
            values |= said
        return [(0, values)]

    def as_dict(self) -> dict[str, Any]:
        """Return what `--export` writes."""
        return {
            "run_id": self.run_id,
            "method": self.method,
            "schedule": [{"step": step, "hyperparameters": values} for step, values in self.schedule],
            "frozen": self.frozen[0][1],
            "config": self.config.model_dump(mode="json"),
        }


class Replay(Method):
    """The same training with given values, learned no more.

    Args:
        source: whose values.
        frozen: the last ones from the start, instead of the schedule.
        all_data: train on the regularization split too.
    """

    def __init__(self, source: Source, *, frozen: bool = False, all_data: bool = False) -> None:
        self.schedule = source.frozen if frozen else source.schedule
        self.all_data = all_data
        self.name = ("frozen" if frozen else "schedule") + ("-all-data" if all_data else "")
        self.summary = "a replay"

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train once."""
        spec = conditions.trial(
            seed,
            schedule=self.schedule,
            all_data=self.all_data,
            final_test=True,
            stopping={},
            **conditions.fixed(),
        )
        (trial,) = yield Trials([spec])
        return self.outcome([trial], trial.final, seed, budget)


@dataclass(frozen=True)
class Verdict:
    """Whether replays of one kind reached what the run reached that they repeat.

    Attributes:
        mode: the replays' name.
        score: what is compared: NLL, or the RMSE of numbers; lower is better.
        replay: of the replays, the mean over seeds.
        source: of the run that they repeat.
        margin: what is no difference: two standard errors of the replays' mean, over test examples and seeds.
    """

    mode: str
    score: str
    replay: float
    source: float
    margin: float

    @property
    def found(self) -> str:
        """Return "reached", "better", "short", or "unknown" where a score is missing."""
        difference = self.replay - self.source
        if not (math.isfinite(difference) and math.isfinite(self.margin)):
            return "unknown"
        return "reached" if abs(difference) <= self.margin else "short" if difference > 0 else "better"

    @property
    def text(self) -> str:
        """Return it in sentences, with the numbers and what they mean."""
        frozen = self.mode.startswith("frozen")
        said = {
            "reached": "reaches what the run reached",
            "better": "is better than the run",
            "short": "falls short of the run",
            "unknown": "cannot be compared with the run",
        }[self.found]
        numbers = f"{self.score.upper()} {self.replay:.4f}, the run's {self.source:.4f}"
        if self.found == "unknown":
            return f"{self.mode}: {said} ({numbers})."
        numbers += f"; within {self.margin:.4f}, two standard errors, is no difference"
        if self.found == "short":
            meaning = (
                "its last values are not enough, how they changed on the way mattered"
                if frozen
                else "the values alone are not what made it good: learning them, or chance, was part of it"
            )
        else:
            meaning = (
                "its last values, fixed from the start, are enough for trainings to come"
                if frozen
                else "what it learned carries over to a training that learns nothing"
            )
        return f"{self.mode}: {said} ({numbers}): {meaning}."

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {**asdict(self), "found": self.found, "text": self.text}


def verdicts(source: Source, outcomes: Sequence[Outcome]) -> list[Verdict]:
    """Return whether replays reached what their source reached, a verdict a mode."""
    found = []
    for mode in dict.fromkeys(outcome.method for outcome in outcomes):
        mine = [outcome for outcome in outcomes if outcome.method == mode]
        score = "nll" if "nll" in mine[0].test and "rmse" not in mine[0].test else "rmse"
        values = np.array([outcome.test.get(score, math.nan) for outcome in mine])
        over_seeds = values.var(ddof=1) if len(values) > 1 else 0.0
        over_examples = np.mean([_variance(outcome, score) for outcome in mine])
        margin = 2 * math.sqrt((over_seeds + over_examples) / len(values))
        found.append(Verdict(mode, score, float(values.mean()), source.test.get(score, math.nan), margin))
    return found


def _variance(outcome: Outcome, score: str) -> float:
    """Return the variance of a score as the mean over test examples."""
    values = None if outcome.examples is None else outcome.examples.values(score)
    return math.nan if values is None else float(values.var(ddof=1) / len(values))


def find_source(tracking: TrackingConfig, run_id: str) -> Source:
    """Return the regularization that a run of `crossreg train` learned, or a method of `crossreg compare` found.

    Raises:
        UserError: no such run, or one that has none.
    """
    tags = run_tags(tracking, run_id)
    if tags.get("kind") == "method":
        outcome = Outcome.model_validate_json(read_artifact(tracking, run_id, "outcome.json"))
        if outcome.config is None or not outcome.schedule:
            raise UserError(f"run {run_id!r} ({outcome.method}) has no schedule to replay")
        _require_length(run_id, outcome.config)
        return Source(run_id, outcome.method, outcome.config, outcome.schedule, outcome.test)
    if (text := from_tags(tags, "crossreg.config")) is not None:
        config = TrainConfig.model_validate_json(text)
        _require_length(run_id, config)
        history, latest = metric_history(tracking, run_id, (hyperparameter(""),))
        if not history:
            raise UserError(f"run {run_id!r} learned no regularization; give one that did")
        steps: dict[int, Values] = {}
        for name, points in history.items():
            for step, value in points:
                steps.setdefault(step, {}).update(hyperparameters_in({name: value}))
        test = {name.removeprefix("test/"): value for name, value in latest.items() if name.startswith("test/")}
        return Source(run_id, config.method, config, sorted(steps.items()), test)
    kind = tags.get("kind", "foreign")
    raise UserError(
        f"run {run_id!r} is a {kind} run; give a run of `crossreg train`, or one of a method in `crossreg compare`"
    )


def _require_length(run_id: str, config: TrainConfig) -> None:
    if config.finds_length:
        raise UserError(
            f"run {run_id!r} found its length while it trained, and a replay repeats a training of a given one; "
            "replay a run of --schedule cosine or constant"
        )
