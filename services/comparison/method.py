"""What a method of the comparison is: a name, and a short generator that says what to run.

A method yields trials or a search, is handed what they did, and returns the outcome:

    def run(self, study, seed, budget):
        (trial,) = yield Trials([study.trial(seed, method="none", amount=budget.amount)])
        return self.outcome([trial], trial.final, seed, budget)

Most are a `SingleRun` or a `PopulationSearch` and say only what is theirs. A method starts nothing itself, so trials of
many methods and seeds share the cluster.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.regularizers.knobs import sigma_knobs
from crossreg.core.random import derive_seed
from services.data import DataConfig, Dataset
from services.search.budget import Budget, Plan
from services.search.outcome import Outcome, best_of, outcome_of
from services.search.run import Search, TrialResult
from services.search.spec import Knobs, Record, TrialSpec
from services.training.assemble import batch_size, build_model, num_steps, rho_interval
from services.training.config import TrainConfig

__all__ = [
    "SIGMA_RANGE",
    "Method",
    "PopulationSearch",
    "Run",
    "SingleRun",
    "Space",
    "Study",
    "Trials",
    "sample",
    "with_dropout",
]

SIGMA_RANGE = (0.01, 10.0)
"""Noise scales that a search line_styles through, log-uniformly."""

MIN_INTERVALS = 4
"""Fewest intervals that a member of a population is cut into, if the run has as many."""

MAX_SELECTION = 0.15
"""Share of a member's compute that evaluating its intervals may take while there are more than the fewest."""

Space = dict[str, tuple[float, float]]
"""Range of each knob, searched on a logarithmic scale."""


@dataclass
class Trials:
    """Trials that need nothing from one another."""

    specs: list[TrialSpec]


Run = Generator[Trials | Search, list[TrialResult], Outcome]


@dataclass
class Study:
    """What is compared, the same for every method.

    Attributes:
        config: the cross-regularized training; every method trains the same model on the same splits with the same
            optimizer, schedule and evaluations.
        load: returns the dataset of a configuration.
        population: trials of a search.
        unit: what budgets are counted in, one of `services.search.budget.UNITS`.
        select_on: score of the regularization split that searches choose by, "nll" or "accuracy".
        seconds: worker-seconds a FLOP of the cross-regularized run by seed; needed where the unit is worker-seconds.
    """

    config: TrainConfig
    load: Callable[[DataConfig], Dataset]
    population: int = 8
    unit: str = "flops"
    select_on: str = "nll"
    seconds: dict[int, float] = field(default_factory=dict)

    def data(self, seed: int, all_data: bool = False) -> Dataset:
        """Return the splits of a seed; with `all_data` the regularization split is part of the training split."""
        return self.load(self._data_config(seed, all_data))

    def reference(self, seed: int) -> TrainConfig:
        """Return the cross-regularized training of a seed, its length, batch and interval written out."""
        config = self.config.model_copy(
            update={"method": "crossreg", "seed": seed, "data": self._data_config(seed, False)}
        )
        # written out, so that a method that trains on more data or has no rho keeps them
        size = batch_size(config, self.data(seed), 1)
        steps = num_steps(config, self.data(seed), 1)
        rho = config.rho.model_copy(update={"interval": rho_interval(config, steps)})
        return config.model_copy(update={"steps": steps, "batch_size": size, "rho": rho})

    def budget(self, name: str, seed: int) -> Budget:
        """Return what a budget's name means for a seed.

        Raises:
            UserError: no such budget.
        """
        factor = Budget.factor_of(name, self.population)
        reference = self.reference(seed)
        unit = "flops" if self.unit == "worker_seconds" else self.unit
        cost = Plan(reference, self.data(seed), select=False).cost(reference.steps or 1)
        return Budget(name, factor, unit, factor * float(getattr(cost, unit)))

    def limit(self, budget: Budget, seed: int, *, planned: bool = True) -> tuple[str, float] | None:
        """Return what has to be metered while a search runs; None where its plan keeps the budget.

        Raises:
            UserError: the unit is worker-seconds, and the cross-regularized run has not ended.
        """
        if self.unit != "worker_seconds":
            return None if planned else (budget.unit, budget.amount)
        if seed not in self.seconds:
            raise UserError("a budget in worker-seconds is measured on the cross-regularized run; compare it too")
        return "worker_seconds", budget.amount * self.seconds[seed]

    def trial(
        self,
        seed: int,
        *,
        amount: float | None = None,
        unit: str = "flops",
        all_data: bool = False,
        select: bool = False,
        member: int | None = None,
        patience: int | None = None,
        schedule: Any = None,
        **changes: Any,
    ) -> TrialSpec:
        """Return a trial: the cross-regularized training with changes.

        Args:
            seed: of the split, and of the training.
            amount: compute it may use; None gives it as many steps as the cross-regularized run has.
            unit: of the amount.
            all_data: train on the regularization split too.
            select: the regularization split's scores decide something, so they count as compute.
            member: place in a population, whose members differ in weights and order; the splits stay the same.
            patience: see `TrialSpec`.
            schedule: see `TrialSpec`.
            changes: fields of `TrainConfig`.
        """
        own = seed if member is None else derive_seed(seed, "member", member) % 2**31
        own_config = {"seed": own, "data": self._data_config(seed, all_data).model_dump(), **changes}
        if own_config.get("method", "crossreg") != "crossreg":
            own_config.setdefault("learn", {})  # what a rival regularizes by is its own
        config = TrainConfig.model_validate(self.reference(seed).model_dump() | own_config)
        data = self.data(seed, all_data)
        if amount is not None:
            steps = Plan(config, data, select).steps_within(amount, unit)
            config = config.model_copy(update={"steps": steps})
        return TrialSpec(config=config, data=data.fingerprint, select=select, patience=patience, schedule=schedule)

    def member(self, seed: int, budget: Budget, index: int | None, **changes: Any) -> TrialSpec:
        """Return one member of a population that shares a budget equally, and of which one will be chosen.

        A member of few steps is cut into fewer intervals, so that evaluating them does not eat the budget.
        """
        given = {"select": True, "member": index, "final_test": False, **changes}
        amount = budget.amount / self.population
        fewest = min(MIN_INTERVALS, self.config.evaluations)
        for evaluations in range(self.config.evaluations, fewest - 1, -1):
            spec = self.trial(seed, amount=amount, unit=budget.unit, evaluations=evaluations, **given)
            plan = Plan(spec.config, self.data(seed), select=True)
            if not plan.selection_share(spec.steps) > MAX_SELECTION:
                break
        return spec

    @cached_property
    def noise_space(self) -> Space:
        """Every layer's noise scale."""
        config = self.reference(self.config.seed).model_copy(update={"method": "fixed"})
        return dict.fromkeys(sigma_knobs(build_model(config, self.data(self.config.seed))), SIGMA_RANGE)

    def _data_config(self, seed: int, all_data: bool) -> DataConfig:
        changes: dict[str, Any] = {"seed": seed, **({"reg_share": 0.0} if all_data else {})}
        return self.config.data.model_copy(update=changes)


class Method(ABC):
    """A method of the comparison.

    Attributes:
        name: as the user gives it.
        summary: one line for `--help`.
        searches: whether it runs a population, so that it takes any budget; one that does not takes its own.
        own_budget: the budget of a method that does not search.
    """

    name: str
    summary: str
    searches: bool = False
    own_budget: str = "matched"

    def budgets(self, asked: Sequence[str]) -> list[str]:
        """Return the budgets that it is run with."""
        return list(asked) if self.searches else [self.own_budget]

    @property
    def nested(self) -> bool:
        """Whether it trains more than one trial."""
        return self.searches or self.own_budget != "matched"

    @abstractmethod
    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Say what to run and return what came of it."""

    def outcome(self, trials: list[TrialResult], chosen: Record, seed: int, budget: Budget, **changes: Any) -> Outcome:
        """Return the outcome of trials of which one record was chosen."""
        return outcome_of(trials, chosen, method=self.name, budget=budget.name, seed=seed, **changes)


class SingleRun(Method):
    """One training, of as many steps as the budget pays for."""

    @abstractmethod
    def changes(self, study: Study, seed: int) -> dict[str, Any]:
        """Return what differs from the cross-regularized training, as arguments of `Study.trial`."""

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train once."""
        spec = study.trial(seed, amount=budget.amount, unit=budget.unit, **self.changes(study, seed))
        (trial,) = yield Trials([spec])
        return self.outcome([trial], trial.final, seed, budget)


class PopulationSearch(Method):
    """Members that share the budget, of which the best on the regularization split is taken.

    Attributes:
        planned: members are as long as the budget pays for; else it is metered while they run.
    """

    searches = True
    planned = True

    def specs(self, study: Study, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return what the members train: here, with noise that does not learn."""
        return [study.member(seed, budget, index, method="fixed") for index in range(study.population)]

    def starts(self, study: Study, seed: int, size: int) -> list[Knobs]:
        """Return the knobs that they start with: here, every layer's noise scale."""
        return [sample(study.noise_space, seed, index) for index in range(size)]

    def how(self, study: Study, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return what else `Search` is given, such as a scheduler; by default every member runs to its end."""
        return {}

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train the members and take the best."""
        specs = self.specs(study, seed, budget)
        limit = study.limit(budget, seed, planned=self.planned)
        how = self.how(study, seed, specs)
        trials = yield Search(
            specs, self.starts(study, seed, len(specs)), limit=limit, select_on=study.select_on, **how
        )
        return self.outcome(trials, best_of(trials, study.select_on), seed, budget)


def with_dropout(study: Study, p: float) -> dict[str, Any]:
    """Return configuration changes that build dropout into the model, and leave noise out.

    Raises:
        UserError: the model takes no dropout.
    """
    changes = {"method": "none", "model_options": {**study.config.model_options, "dropout": p}}
    try:
        build_model(study.config.model_copy(update=changes), study.data(study.config.seed))
    except UserError as error:
        raise UserError(
            f"model {study.config.model!r} takes no option 'dropout', which this method needs: {error}"
        ) from None
    return changes


def sample(space: Space, seed: int, index: int) -> Knobs:
    """Return knobs drawn log-uniformly; the same for the same seed and index whoever asks."""
    rng = np.random.default_rng(derive_seed(seed, "start", index))
    return {name: float(np.exp(rng.uniform(np.log(low), np.log(high)))) for name, (low, high) in space.items()}
