"""Training again with regularization that was learned or found before: the certificate that it carries over."""

from __future__ import annotations

import json
from dataclasses import dataclass

from services.comparison.method import Method, Run, Study, Trials
from crossreg.core.errors import UserError
from services.search.budget import Budget
from services.search.outcome import Outcome
from services.search.spec import Schedule
from services.tracking import TrackingConfig
from services.tracking.resume import metric_history, read_artifact, run_tags
from services.training.config import TrainConfig

__all__ = ["Replay", "Source", "find_source"]

_LEARNED = ("sigma/", "rho/")


@dataclass(frozen=True)
class Source:
    """An earlier run whose regularization is replayed.

    Attributes:
        run_id: the MLflow run.
        method: what made it.
        config: what was trained.
        schedule: knobs by step.
        test: its scores on the test split.
    """

    run_id: str
    method: str
    config: TrainConfig
    schedule: Schedule
    test: dict[str, float]

    @property
    def frozen(self) -> Schedule:
        """The last values of all knobs, from the first step on."""
        values: dict[str, float] = {}
        for _, knobs in self.schedule:
            values |= knobs
        return [(0, values)]

    def as_dict_(self) -> str:
        """Return what `--export` writes."""
        plain = {
            "run_id": self.run_id,
            "method": self.method,
            "schedule": [{"step": step, "knobs": knobs} for step, knobs in self.schedule],
            "frozen": self.frozen[0][1],
            "config": self.config.model_dump(mode="json"),
        }
        return json.dumps(plain, indent=1)


class Replay(Method):
    """The same training with given knobs, learned no more.

    Args:
        source: whose knobs.
        frozen: their last values from the start, instead of the schedule.
        all_data: train on the regularization split too.
    """

    def __init__(self, source: Source, *, frozen: bool = False, all_data: bool = False) -> None:
        self.schedule = source.frozen if frozen else source.schedule
        self.noisy, self.all_data = source.config.noisy, all_data
        self.name = ("frozen" if frozen else "schedule") + ("-all-data" if all_data else "")
        self.summary = "a replay"

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train once."""
        (trial,) = yield Trials(
            [
                study.trial(
                    seed,
                    method="fixed" if self.noisy else "none",
                    knobs={},
                    schedule=self.schedule,
                    all_data=self.all_data,
                    final_test=True,
                )
            ]
        )
        return self.outcome([trial], trial.final, seed, budget)


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
        return Source(run_id, outcome.method, outcome.config, outcome.schedule, outcome.test)
    if "crossreg.config" in tags:
        config = TrainConfig.model_validate_json(tags["crossreg.config"])
        history, latest = metric_history(tracking, run_id, _LEARNED)
        if not history:
            raise UserError(f"run {run_id!r} learned no regularization; give one of method crossreg")
        steps: dict[int, dict[str, float]] = {}
        for name, points in history.items():
            for step, value in points:
                steps.setdefault(step, {})[name] = value
        test = {name.removeprefix("test/"): value for name, value in latest.items() if name.startswith("test/")}
        return Source(run_id, config.method, config, sorted(steps.items()), test)
    kind = tags.get("kind", "foreign")
    raise UserError(
        f"run {run_id!r} is a {kind} run; give a run of `crossreg train`, or one of a method in `crossreg compare`"
    )
