"""All numbers of one method under one budget."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from crossreg.services.comparison.report.compute_to_target import ComputeToTarget, compute_to_target
from crossreg.services.comparison.report.estimates import Difference, Estimate, difference
from crossreg.services.comparison.report.groups import Group, spent

__all__ = ["Row", "row_of"]


@dataclass(frozen=True)
class Row:
    """A row of the tables. Accuracy and ECE are in 0..1, NLL in nats.

    Attributes:
        method: its name.
        budget: "matched", "full" or a factor; see `Context.population`.
        label: the method, and the budget where the method has several.
        is_reference: whether the others are compared with it.
        seeds: that it was run on.
        diverged: seeds without scores; they are in no mean of scores, but in every mean of what was spent.
        scores: on the test split, by name.
        scaled: the same after temperature scaling on the regularization split; without values where there is none.
        temperature: the fitted temperature.
        compute: spent on all trials of a seed, in the unit of the comparison.
        compute_ratio: the same divided by the reference's on the same seeds; NaN without a reference.
        trials: trials that were run, mean over seeds.
        failed: trials that ended by an error, on all seeds together.
        worker_seconds: time of all workers together, mean over seeds.
        peak_memory_bytes: the largest over seeds.
        seconds: wall-clock time, mean over seeds.
        utilization: share of their time that workers trained, mean over seeds; NaN for a single trial.
        differences: scores minus the reference's, by name; empty for the reference.
        scaled_differences: the same after temperature scaling of both.
        compute_to_target: the reference's compute until it would have returned as good a model as this method; None
            unless this is a search.
    """

    method: str
    budget: str
    label: str
    is_reference: bool
    seeds: list[int]
    diverged: list[int]
    scores: dict[str, Estimate]
    scaled: dict[str, Estimate]
    temperature: Estimate
    compute: Estimate
    compute_ratio: float
    trials: float
    failed: int
    worker_seconds: float
    peak_memory_bytes: int
    seconds: float
    utilization: float
    differences: dict[str, Difference]
    scaled_differences: dict[str, Difference]
    compute_to_target: ComputeToTarget | None


def row_of(group: Group, reference: Group | None, names: Sequence[str], unit: str, select_on: str = "nll") -> Row:
    """Return a group's numbers.

    Args:
        group: whose.
        reference: what to compare with; None for nothing.
        names: scores to give, in order.
        unit: of compute.
        select_on: the score on the regularization split that searches choose by.
    """
    outcomes = group.outcomes.values()
    other = reference if reference is not None and reference is not group else None
    scores, scaled = group.scores(names), group.scores(names, scaled=True)
    searched = any(outcome.members for outcome in outcomes)
    return Row(
        method=group.method,
        budget=group.budget,
        label=group.label,
        is_reference=group is reference,
        seeds=list(group.outcomes),
        diverged=group.diverged,
        scores=scores,
        scaled=scaled,
        temperature=group.over_seeds(lambda outcome: outcome.temperature),
        compute=group.over_seeds(lambda outcome: spent(outcome.cost, unit)),
        compute_ratio=_compute_ratio(group, reference, unit),
        trials=group.over_seeds(lambda outcome: outcome.trials).mean,
        failed=sum(outcome.failed for outcome in outcomes),
        worker_seconds=group.over_seeds(lambda outcome: outcome.cost.worker_seconds).mean,
        peak_memory_bytes=max(outcome.peak_memory_bytes for outcome in outcomes),
        seconds=group.over_seeds(lambda outcome: outcome.seconds).mean,
        utilization=group.over_seeds(lambda outcome: outcome.utilization).mean,
        differences=_differences(scores, other.scores(names)) if other else {},
        scaled_differences=_differences(scaled, other.scores(names, scaled=True)) if other else {},
        compute_to_target=compute_to_target(group, other, names, unit, select_on) if other and searched else None,
    )


def _differences(mine: dict[str, Estimate], others: dict[str, Estimate]) -> dict[str, Difference]:
    return {name: difference(name, mine[name], others[name]) for name in mine}


def _compute_ratio(group: Group, reference: Group | None, unit: str) -> float:
    """Return the ratio of mean compute on the seeds that both have."""
    shared = [seed for seed in group.outcomes if reference is not None and seed in reference.outcomes]
    if reference is None or not shared:
        return math.nan
    mine = math.fsum(spent(group.outcomes[seed].cost, unit) for seed in shared)
    others = math.fsum(spent(reference.outcomes[seed].cost, unit) for seed in shared)
    return mine / others if others > 0 else math.nan
