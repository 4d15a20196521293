"""Outcomes by method and budget: what becomes a row of the tables and a line of the figures."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossreg.core.errors import UserError
from crossreg.services.comparison.report.estimates import Estimate, Sample, estimate
from crossreg.services.comparison.report.numbers import budget_name

if TYPE_CHECKING:
    from crossreg.services.comparison.outcome import Outcome
    from crossreg.training.compute import Cost

__all__ = ["Group", "group_outcomes", "reference_of", "score_names", "spent"]

_ORDER = ("accuracy", "nll", "rmse", "ece", "brier")


@dataclass(frozen=True)
class Group:
    """The outcomes of one method under one budget.

    Attributes:
        method: its name.
        budget: the budget's name.
        label: the method, and the budget where the method has several.
        outcomes: by seed, in order.
    """

    method: str
    budget: str
    label: str
    outcomes: dict[int, Outcome]

    @property
    def scored(self) -> dict[int, Outcome]:
        """The outcomes that have scores; the others diverged."""
        return {seed: outcome for seed, outcome in self.outcomes.items() if _has_scores(outcome)}

    @property
    def diverged(self) -> list[int]:
        """Seeds whose training diverged."""
        return [seed for seed, outcome in self.outcomes.items() if not _has_scores(outcome)]

    def over_seeds(self, number: Callable[[Outcome], float]) -> Estimate:
        """Return the mean of a number of every outcome."""
        return estimate({seed: number(outcome) for seed, outcome in self.outcomes.items()})

    def scores(self, names: Iterable[str], scaled: bool = False) -> dict[str, Estimate]:
        """Return scores on the test split by name, over the seeds that did not diverge."""
        found = {seed: o.test_scaled if scaled else o.test for seed, o in self.scored.items()}
        return {
            name: estimate(
                {seed: said.get(name, math.nan) for seed, said in found.items()}, self._samples(name, scaled)
            )
            for name in names
        }

    def _samples(self, score: str, scaled: bool) -> dict[int, Sample]:
        """Return a score on single test examples by seed, where that is known."""
        known = {seed: outcome.examples for seed, outcome in self.scored.items() if outcome.examples is not None}
        values = {seed: (one.split, one.values(score, scaled)) for seed, one in known.items()}
        return {seed: Sample(split, one) for seed, (split, one) in values.items() if one is not None}


def group_outcomes(outcomes: Sequence[Outcome]) -> list[Group]:
    """Return the outcomes by method and budget: methods as they came, each with its budgets as they came.

    Raises:
        UserError: no outcome, or two for one method, budget and seed.
    """
    if not outcomes:
        raise UserError("there is nothing to report: no method has finished on any seed")
    found: dict[str, dict[str, dict[int, Outcome]]] = {}
    for outcome in outcomes:
        seeds = found.setdefault(outcome.method, {}).setdefault(outcome.budget, {})
        if outcome.seed in seeds:
            raise UserError(
                f"two outcomes for method {outcome.method!r}, budget {outcome.budget!r}, seed {outcome.seed}; "
                "a report takes one of each"
            )
        seeds[outcome.seed] = outcome
    return [
        Group(
            method,
            budget,
            method if len(budgets) == 1 else f"{method} ({budget_name(budget)})",
            dict(sorted(seeds.items())),
        )
        for method, budgets in found.items()
        for budget, seeds in budgets.items()
    ]


def reference_of(groups: Sequence[Group], method: str) -> Group | None:
    """Return the reference's group, at matched budget where it has several; None where it was not run."""
    mine = [group for group in groups if group.method == method]
    return min(mine, key=lambda group: group.budget != "matched", default=None)


def score_names(outcomes: Iterable[Outcome]) -> list[str]:
    """Return the names of all scores on the test split, the best known first."""
    names = {name for outcome in outcomes for name in outcome.test}
    return [name for name in _ORDER if name in names] + sorted(names - set(_ORDER))


def spent(cost: Cost, unit: str) -> float:
    """Return a cost in a unit, the name of a field of `Cost`."""
    return float(getattr(cost, unit))


def _has_scores(outcome: Outcome) -> bool:
    return bool(outcome.test) and all(math.isfinite(value) for value in outcome.test.values())
