"""How much compute the reference needed until it would have returned a model as good as a search's."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossreg.services.comparison.report.estimates import larger_is_better
from crossreg.services.comparison.report.groups import Group, spent

if TYPE_CHECKING:
    from crossreg.services.comparison.outcome import Outcome

__all__ = ["ComputeToTarget", "compute_to_target"]


@dataclass(frozen=True)
class ComputeToTarget:
    """What the reference spent until it would have returned a model as good as a search's: the target.

    What a method returns is judged by the score on the regularization split that searches choose by, never by a look at
    the test split, and the reference counts as there from the moment from which on it stays as good until its end: a
    curve that touches the target by chance and ends worse has not reached it.

    Attributes:
        score: the score's name, on the regularization split.
        fractions: by seed, what the reference had spent then, as a fraction of all that the search spent; only seeds
            on which it got there.
        never: seeds on which it did not.
        mean: of the fractions; NaN without any.
        behind: what its test scores were short of the search's final ones at that moment, by score: mean over the
            seeds that got there, positive where the reference was worse.
    """

    score: str
    fractions: dict[int, float]
    never: list[int]
    mean: float
    behind: dict[str, float]

    @property
    def num_seeds(self) -> int:
        """Seeds on which there was a target."""
        return len(self.fractions) + len(self.never)

    @property
    def counted(self) -> str:
        """On how many of them it was reached, in words."""
        return f"{len(self.fractions)} of {self.num_seeds} {'seed' if self.num_seeds == 1 else 'seeds'}"


def compute_to_target(
    search: Group, reference: Group, names: Sequence[str], unit: str, select_on: str = "nll"
) -> ComputeToTarget:
    """Return the reference's compute to a search's final score on the regularization split.

    Args:
        search: whose final scores are the targets.
        reference: whose curve is followed.
        names: scores on the test split that there are.
        unit: of compute.
        select_on: the score that searches choose by.
    """
    fractions: dict[int, float] = {}
    never, short = [], []
    for seed, target in search.outcomes.items():
        run = reference.outcomes.get(seed)
        goal = _goal(target, run).get(select_on, math.nan)
        if run is None or not run.curve or not math.isfinite(goal):
            continue
        place = _stays_from(run, goal, select_on)
        whole = spent(target.cost, unit)
        if place is None or whole <= 0:
            never.append(seed)
            continue
        point = run.curve[place]
        fractions[seed] = spent(point.cost, unit) / whole
        short.append({name: _behind(name, point.test, _final(target, "test")) for name in ("accuracy", "nll", "rmse")})
    mean = math.fsum(fractions.values()) / len(fractions) if fractions else math.nan
    behind = {name: math.fsum(one[name] for one in short) / len(short) for name in names if short and name in short[0]}
    kept = {name: value for name, value in behind.items() if math.isfinite(value)}
    return ComputeToTarget(select_on, fractions, never, mean, kept)


def _goal(target: Outcome, run: Outcome | None) -> dict[str, float]:
    """Return the search's final scores on the regularization split, scaled where those of the run are."""
    scaled = run is not None and run.config is not None and run.config.finds_length
    return target.reg_scaled if scaled and target.reg_scaled else _final(target, "reg")


def _final(target: Outcome, split: str) -> dict[str, float]:
    # where the search's own curve ends: its points are measured on the same examples as the other's
    scores: dict[str, float] = getattr(target.curve[-1] if target.curve else target, split)
    return scores


def _stays_from(run: Outcome, goal: float, score: str) -> int | None:
    """Return the place on a curve from which on it is as good as a goal to its end; None where its end is not."""
    place = None
    for index in reversed(range(len(run.curve))):
        value = run.curve[index].reg.get(score, math.nan)
        if not (value >= goal if larger_is_better(score) else value <= goal):
            break
        place = index
    return place


def _behind(score: str, mine: dict[str, float], others: dict[str, float]) -> float:
    short = mine.get(score, math.nan) - others.get(score, math.nan)
    return -short if larger_is_better(score) else short
