"""What a method reached on one seed, and what it cost: the row of a comparison."""

from __future__ import annotations

import base64
import hashlib
import math
from typing import Annotated, Any

import numpy as np
import torch
from pydantic import BaseModel, ConfigDict, Field

from crossreg.core.metrics import hyperparameters_in
from crossreg.prediction import calibration
from crossreg.services.search.evaluate import final_evaluation
from crossreg.services.search.search import TrialResult
from crossreg.services.search.spec import Record, Schedule, selection_score
from crossreg.services.search.trial import schedule_of
from crossreg.services.settings import NullIsNan, Scores
from crossreg.services.training.assemble import interim_rows
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.result import Predictions, TrainingResult, are_probabilities, calibrated
from crossreg.training.compute import Cost

__all__ = ["ExampleScores", "Outcome", "Point", "best_of", "outcome_of", "utilization_of"]


class Point(BaseModel):
    """Where a method stood when so much had been spent, over all its trials.

    Attributes:
        cost: spent so far.
        step: theta steps of all trials so far.
        reg: scores on the regularization split of the trial that led then; empty without one.
        test: its scores on the test split.
    """

    model_config = ConfigDict(frozen=True)

    cost: Annotated[Cost, NullIsNan]
    step: int
    reg: Scores
    test: Scores


class ExampleScores(BaseModel):
    """Scores of single test examples: what the sampling of a test split does to their means is told by them.

    Attributes:
        split: hash of the targets in their order; equal for equal test splits.
        scores: by name, values of which the mean is the score (of an RMSE, to first order), float16 `[N]` in base64.
        scaled: the same after temperature scaling.
    """

    model_config = ConfigDict(frozen=True)

    split: str
    scores: dict[str, str] = {}
    scaled: dict[str, str] = {}

    def values(self, score: str, scaled: bool = False) -> np.ndarray | None:
        """Return the values of a score, float64 `[N]`; None where there are none."""
        text = (self.scaled if scaled else self.scores).get(score)
        return None if text is None else np.frombuffer(base64.b64decode(text), "<f2").astype(np.float64)


def example_scores(predictions: Predictions, temperature: float) -> ExampleScores | None:
    """Return the scores of single test examples; None where predictions have none."""
    test = predictions["test"]
    mean, targets = test["mean"], test["targets"]
    split = hashlib.sha256(np.ascontiguousarray(targets.cpu().numpy()).tobytes()).hexdigest()[:16]
    if are_probabilities(test):
        found = calibration.example_scores(mean, targets)
        scaled: dict[str, torch.Tensor] = {}
        if math.isfinite(temperature):
            logits = calibration.log_probabilities(mean)
            scaled = calibration.example_scores(calibration.apply_temperature(logits, temperature), targets)
        return ExampleScores(split=split, scores=_packed(found), scaled=_packed(scaled))
    if not targets.is_floating_point() or not bool(mean.isfinite().all()):
        return None
    squared = (mean - targets).double().square().reshape(len(mean), -1).mean(1)
    rmse = squared.mean().sqrt()
    # to first order: the mean of these is the root of the mean of the squares
    return ExampleScores(split=split, scores=_packed({"rmse": rmse + (squared - squared.mean()) / (2 * rmse)}))


def _packed(values: dict[str, torch.Tensor]) -> dict[str, str]:
    return {name: base64.b64encode(one.numpy().astype("<f2").tobytes()).decode() for name, one in values.items()}


class Outcome(TrainingResult):
    """What a method reached on one seed under one budget: the result of the chosen trial, at the cost of all.

    Attributes:
        method: its name, e.g. "pbt".
        budget: "matched", "full" or a factor.
        seed: of split, weights and everything else.
        curve: standing against cost; test scores of all its points are on the same test examples, perhaps not all.
        schedule: values of the chosen model's lineage by step, as they were set or learned.
        members: the same for every trial of a search, at its end.
        trials: trials run.
        failed: those of them that ended early by an error, and so lost.
        seconds: wall-clock time.
        utilization: share of the time, between the first and the last interval, in which the slots in use trained.
        run_id: the MLflow run; None until it is recorded.
        config: what the chosen trial was, for a replay.
        examples: scores of single test examples; None where it diverged.
        reg_scaled: scores on the regularization split after the temperature that suits it best: what is compared with
            those of a run that finds its length, which are scaled so; empty without one.
    """

    method: str
    budget: str
    seed: int
    curve: list[Point] = Field(default_factory=list)
    schedule: Annotated[Schedule, NullIsNan] = Field(default_factory=list)
    members: Annotated[list[Schedule], NullIsNan] = Field(default_factory=list)
    trials: int = 1
    failed: int = 0
    seconds: float = 0.0
    utilization: Annotated[float, NullIsNan] = math.nan
    run_id: str | None = None
    config: ResolvedConfig | None = None
    examples: ExampleScores | None = None
    reg_scaled: Scores = Field(default_factory=dict)


def outcome_of(
    trials: list[TrialResult], chosen: Record, *, method: str, budget: str, seed: int, **changes: Any
) -> Outcome:
    """Return the outcome of trials of which one record was chosen.

    Args:
        trials: all that were run for it.
        chosen: its record; its checkpoint must still be there.
        method: the method's name.
        budget: the budget's name.
        seed: the seed.
        changes: fields of `Outcome` that differ from what the trials say.
    """
    owner = next(trial for trial in trials if any(record.state == chosen.state for record in trial.records))
    scores, predictions = final_evaluation(owner, chosen)
    on_curve = interim_scores(owner.spec.config, predictions["test"]) or scores["test"]
    lineages, curve = [trial.lineage for trial in trials], curve_of(trials)
    lineage = owner.states.lineage(chosen.state)
    schedule = schedule_of(lineage)
    fields: dict[str, Any] = {
        "method": method,
        "budget": budget,
        "seed": seed,
        "test": scores["test"],
        "reg": scores.get("reg", {}),
        "regularizers": chosen.hyperparameters,
        "learned": sorted({name for r in lineage for _, _, said in r.metrics for name in hyperparameters_in(said)}),
        "cost": sum((trial.cost for trial in trials), Cost()),
        "peak_memory_bytes": max(record.peak_memory_bytes for trial in trials for record in trial.records),
        "curve": [*curve[:-1], curve[-1].model_copy(update={"reg": scores.get("reg", {}), "test": on_curve})],
        "schedule": schedule,
        "members": [schedule_of(lineage) for lineage in lineages] if len(trials) > 1 else [],
        "trials": len(trials),
        "failed": sum(trial.error is not None for trial in trials),
        "config": owner.spec.config,
        "seconds": max(r.ended for t in trials for r in t.records) - min(r.began for t in trials for r in t.records),
        "utilization": utilization_of(trials),
        **(known := calibrated(predictions)),
        "examples": example_scores(predictions, known.get("temperature", math.nan)),
    }
    if "reg" in predictions and are_probabilities(predictions["reg"]):
        mean, targets = predictions["reg"]["mean"], predictions["reg"]["targets"]
        fields["reg_scaled"] = calibration.temperature_scaled(mean, targets, mean, targets)[0].as_dict()
    if owner.spec.config.finds_length and "test_scaled" in known:  # on that split, by the training itself
        fields |= {"test_scaled": scores["test"], "temperature": 1.0, "examples": example_scores(predictions, 1.0)}
    return Outcome.model_validate(fields | changes)


def best_of(trials: list[TrialResult], select_on: str = "nll") -> Record:
    """Return the last record of the trial that scores best on the regularization split among those that ended.

    Trials that diverged have no score and lose; if all did, the first is returned.
    """
    ended = [trial for trial in trials if trial.complete] or trials
    return min((trial.final for trial in ended), key=lambda record: selection_score(record, select_on))


def curve_of(trials: list[TrialResult]) -> list[Point]:
    """Return the standing after every interval of any trial, in the order of time."""
    events = sorted(
        ((record.ended, place, record) for place, trial in enumerate(trials) for record in trial.records),
        key=lambda event: event[:2],
    )
    until = {record.state: record.until for _, _, record in events}
    latest: dict[int, Record] = {}
    points, cost, step = [], Cost(), 0
    for _, place, record in events:
        step += record.until - (until[record.parent] if record.parent else 0)
        cost = cost + record.cost
        latest[place] = record
        # a trial without a regularization split is trained last, on what the others found
        leader = min(latest.values(), key=lambda r: r.score("reg", "nll") if "reg" in r.scores else -math.inf)
        points.append(Point(cost=cost, step=step, reg=leader.scores.get("reg", {}), test=leader.scores.get("test", {})))
    return points


def interim_scores(config: TrainConfig, test: dict[str, torch.Tensor]) -> dict[str, float]:
    """Return scores on the test examples that a curve's other points were measured on; empty where on all."""
    rows = interim_rows(config, len(test["targets"]))
    if rows is None or not are_probabilities(test):
        return {}
    return calibration.score(test["mean"][rows], test["targets"][rows]).as_dict()


def utilization_of(trials: list[TrialResult]) -> float:
    """Return the share of worker time spent training between the first interval's end and the last's.

    What comes before is the start of the workers.
    """
    records = [record for trial in trials for record in trial.records]
    first, last = min(record.ended for record in records), max(record.ended for record in records)
    spans = [(max(record.began, first), record.ended) for record in records if record.ended > first]
    if not spans or last <= first:
        return math.nan
    edges = sorted({time for span in spans for time in span})
    slots = max(sum(began <= edge < ended for began, ended in spans) for edge in edges)
    return sum(ended - began for began, ended in spans) / ((last - first) * max(slots, 1))
