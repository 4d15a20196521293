"""How much compute the reference needed to be as good as a search was at its end."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from services.comparison.report.estimates import larger_is_better
from services.comparison.report.groups import Group, spent

if TYPE_CHECKING:
    from services.comparison.outcome import Outcome

__all__ = ["ComputeToTarget", "compute_to_target", "compute_to_targets"]


@dataclass(frozen=True)
class ComputeToTarget:
    """What the reference spent until one of its scores was as good as a search's at the end: the target.

    Attributes:
        split: "reg" or "test".
        score: the score's name.
        fractions: by seed, what the reference had spent then, as a fraction of all that the search spent; only seeds
            on which it got there.
        never: seeds on which it did not.
        mean: of the fractions; NaN without any.
    """

    split: str
    score: str
    fractions: dict[int, float]
    never: list[int]
    mean: float

    @property
    def num_seeds(self) -> int:
        """Seeds on which there was a target."""
        return len(self.fractions) + len(self.never)

    @property
    def counted(self) -> str:
        """On how many of them it was reached, in words."""
        return f"{len(self.fractions)} of {self.num_seeds} {'seed' if self.num_seeds == 1 else 'seeds'}"


def compute_to_targets(search: Group, reference: Group, names: Sequence[str], unit: str) -> list[ComputeToTarget]:
    """Return the reference's compute to a search's final scores: NLL on reg; accuracy, NLL or RMSE on test.

    Args:
        search: whose final scores are the targets.
        reference: whose curve is followed.
        names: scores that there are.
        unit: of compute.
    """
    targets = [("reg", "nll")] + [("test", name) for name in ("accuracy", "nll", "rmse") if name in names]
    return [_over_seeds(search, reference, split, score, unit) for split, score in targets]


def compute_to_target(curve_of: Outcome, target: Outcome, split: str, score: str, unit: str) -> float:
    """Return the fraction of one outcome's compute at which another was first as good as it finally was.

    Args:
        curve_of: whose curve is followed.
        target: whose final score is the target and whose compute is the whole.
        split: "reg" or "test".
        score: the score's name.
        unit: of compute.

    Returns:
        The fraction; infinite where it never was as good, NaN where there is no score to be as good as.
    """
    # where the search's own curve ends: its points are measured on the same examples as the other's
    final = target.curve[-1] if target.curve else target
    goal = getattr(final, split).get(score, math.nan)
    if not math.isfinite(goal):
        return math.nan
    for point in curve_of.curve:
        value = getattr(point, split).get(score, math.nan)
        if value >= goal if larger_is_better(score) else value <= goal:
            whole = spent(target.cost, unit)
            return spent(point.cost, unit) / whole if whole > 0 else math.nan
    return math.inf


def _over_seeds(search: Group, reference: Group, split: str, score: str, unit: str) -> ComputeToTarget:
    found = {
        seed: compute_to_target(reference.outcomes[seed], outcome, split, score, unit)
        for seed, outcome in search.outcomes.items()
        if seed in reference.outcomes and reference.outcomes[seed].curve
    }
    fractions = {seed: value for seed, value in found.items() if math.isfinite(value)}
    never = [seed for seed, value in found.items() if value == math.inf]
    mean = math.fsum(fractions.values()) / len(fractions) if fractions else math.nan
    return ComputeToTarget(split, score, fractions, never, mean)
