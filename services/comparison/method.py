"""What a method of the comparison is: a name, and a short generator that says what to run.

A method yields trials or a search, is handed what they did, and returns the outcome:

    def run(self, conditions, seed, budget):
        (trial,) = yield Trials([conditions.trial(seed, amount=budget.amount, regularizers={})])
        return self.outcome([trial], trial.final, seed, budget)

Most are a `SingleRun` or a `PopulationSearch` and say only what is theirs. A method starts nothing itself, so trials of
many methods and seeds share the cluster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.outcome import Outcome, best_of, outcome_of
from crossreg.services.search.budget import Budget
from crossreg.services.search.search import Search, TrialResult
from crossreg.services.search.space import Space
from crossreg.services.search.spec import Record, TrialSpec, Values
from crossreg.services.training.assemble import build_model

__all__ = ["Method", "PopulationSearch", "Run", "SingleRun", "Trials", "sample", "with_dropout"]


@dataclass
class Trials:
    """Trials that need nothing from one another."""

    specs: list[TrialSpec]


Run = Generator[Trials | Search, list[TrialResult], Outcome]


class Method(ABC):
    """A method of the comparison.

    Attributes:
        name: as the user gives it.
        summary: one line for `--help`.
        searches: whether it runs a population, so that it takes any budget; one that does not takes its own.
        own_budget: the budget of a method that does not search.
        is_reference: it is the run that budgets are measured on.
    """

    name: str
    summary: str
    searches: bool = False
    own_budget: str = "matched"
    is_reference: bool = False

    def budgets(self, asked: Sequence[str]) -> list[str]:
        """Return the budgets that it is run with."""
        return list(asked) if self.searches else [self.own_budget]

    @property
    def nested(self) -> bool:
        """Whether it trains more than one trial."""
        return self.searches or self.own_budget != "matched"

    @abstractmethod
    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Say what to run and return what came of it."""

    def outcome(self, trials: list[TrialResult], chosen: Record, seed: int, budget: Budget, **changes: Any) -> Outcome:
        """Return the outcome of trials of which one record was chosen."""
        return outcome_of(trials, chosen, method=self.name, budget=budget.name, seed=seed, **changes)


class SingleRun(Method):
    """One training, of as many steps as the budget pays for."""

    @abstractmethod
    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what differs from the cross-regularized training, as arguments of `Conditions.trial`."""

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train once."""
        spec = conditions.trial(seed, amount=budget.amount, unit=budget.unit, **self.changes(conditions, seed))
        (trial,) = yield Trials([spec])
        return self.outcome([trial], trial.final, seed, budget)


class PopulationSearch(Method):
    """Members that share the budget, of which the best on the regularization split is taken.

    Attributes:
        planned: members are as long as the budget pays for; else it is metered while they run.
    """

    searches = True
    planned = True

    def specs(self, conditions: Conditions, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return what the members train: here, the cross-regularized training that learns nothing."""
        searched = conditions.searched()
        return [conditions.member(seed, budget, index, **searched) for index in range(conditions.population)]

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return the values that they start with: here, of all that the cross-regularized run learns."""
        return [sample(conditions.space, seed, index) for index in range(size)]

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return what else `Search` is given, such as a scheduler; by default every member runs to its end."""
        return {}

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train the members and take the best."""
        specs = self.specs(conditions, seed, budget)
        limit = conditions.limit(budget, seed, planned=self.planned)
        how = self.how(conditions, seed, specs)
        trials = yield Search(
            specs, self.starts(conditions, seed, len(specs)), limit=limit, select_on=conditions.select_on, **how
        )
        return self.outcome(trials, self.best(trials, conditions), seed, budget)

    def best(self, trials: list[TrialResult], conditions: Conditions) -> Record:
        """Return the record of the trial that is taken: here, the best on the regularization split."""
        return best_of(trials, conditions.select_on)


def with_dropout(conditions: Conditions, p: float, **regularizers: Any) -> dict[str, Any]:
    """Return configuration changes that regularize by dropout, and by what else is given.

    Args:
        conditions: of the comparison.
        p: probability of every dropout layer.
        regularizers: see `Conditions.regularized_by`.

    Raises:
        UserError: the model has no dropout, and takes no option of that name.
    """
    changes = conditions.regularized_by(dropout=p, **regularizers)
    try:
        seed = conditions.config.seed
        build_model(conditions.trial(seed, **changes).config, conditions.data(seed))
    except UserError as error:
        raise UserError(
            f"model {conditions.config.model!r} takes no option 'dropout', which this method needs: {error}"
        ) from None
    return changes


def sample(space: Space, seed: int, index: int) -> Values:
    """Return values drawn uniformly on the scale of each; the same for the same seed and index whoever asks."""
    rng = np.random.default_rng(derive_seed(seed, "start", index))
    return {name: one.at(float(rng.uniform())) for name, one in space.items()}
