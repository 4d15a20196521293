"""What is the same for every method of a comparison: model, data, splits, schedule, and how compute is counted."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from crossreg import models
from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed
from crossreg.regularizers.between import BETWEEN
from crossreg.regularizers.noise import dropout_layers, is_normalization
from crossreg.regularizers.registry import description, hyperparameters
from crossreg.services.comparison.config import factor_of
from crossreg.services.data import DataConfig, Dataset
from crossreg.services.search.budget import Budget, Plan
from crossreg.services.search.space import Space, space_of
from crossreg.services.search.spec import TrialSpec
from crossreg.services.training.assemble import build_model, learned_names
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import ResolvedConfig, resolve

__all__ = ["Conditions"]

MIN_INTERVALS = 4
"""Fewest intervals that a member of a population is cut into, if the run has as many."""

MAX_SELECTION = 0.15
"""Share of a member's compute that evaluating its intervals may take while there are more than the fewest."""


_OF_THE_RUN = ("temperature", *(entry.name for entry in BETWEEN))
"""Regularizers that one network with a given schedule does not have: it is scaled afterwards, and there is no other."""


@dataclass
class Conditions:
    """What is compared, the same for every method.

    Attributes:
        config: the cross-regularized training; every method trains the same model on the same splits with the same
            optimizer, schedule and evaluations, or, where that run finds its length, what `single` says.
        load: returns the dataset of a configuration.
        population: trials of a search.
        unit: what budgets are counted in, see `crossreg.services.comparison.config.Unit`.
        select_on: score of the regularization split that searches choose by, "nll" or "accuracy".
        seconds_per_flop: worker-seconds a FLOP of the cross-regularized run by seed; needed where the unit is
            worker-seconds.
    """

    config: TrainConfig
    load: Callable[[DataConfig], Dataset]
    population: int = 8
    unit: str = "flops"
    select_on: str = "nll"
    seconds_per_flop: dict[int, float] = field(default_factory=dict)

    def data(self, seed: int, all_data: bool = False) -> Dataset:
        """Return the splits of a seed; with `all_data` the regularization split is part of the training split."""
        return self.load(self._data_config(seed, all_data))

    def reference(self, seed: int) -> ResolvedConfig:
        """Return the cross-regularized training of a seed.

        Its length, batch and interval are numbers, so that a method that trains on more data, or learns nothing, keeps
        them.
        """
        config = self.config.model_copy(update={"seed": seed, "data": self._data_config(seed, False)})
        return resolve(config, self.data(seed))

    def single(self, seed: int) -> ResolvedConfig:
        """Return the training that every other method changes: the cross-regularized one where its length is given.

        Where that is found, it is one network over as many epochs with a cosine schedule, otherwise as `crossreg train`
        has it without flags, regularized by what was said and nothing more.
        """
        own = self.reference(seed)
        if not own.finds_length:
            return own
        alone: dict[str, Any] = {
            "regularizers": {
                name: one.model_dump() for name, one in self.config.regularizers.items() if name not in _OF_THE_RUN
            },
            "optimizer": self.config.optimizer.model_dump() | {"schedule": "cosine"},
            "budget": None,
            "model": own.model,
            "ensemble": 1,
            "ensemble_style": "independent",
            "batch_size": own.rows,
            # as many rows in all; where all networks see the same ones, as many for each
            "steps": own.steps * (own.batch_size // own.rows if own.rows < own.batch_size else own.ensemble),
            "seed": seed,
            "data": own.data.model_dump(),
        }
        return resolve(TrainConfig.model_validate(self.config.model_dump() | alone), self.data(seed))

    def budget(self, name: str, seed: int) -> Budget:
        """Return what a budget's name means for a seed.

        Raises:
            UserError: no such budget.
        """
        factor = factor_of(name, self.population)
        reference = self.reference(seed)
        unit = "flops" if self.unit == "worker_seconds" else self.unit
        cost = Plan(reference, self.data(seed), select=False).cost(reference.steps)
        return Budget(name, factor, unit, factor * float(getattr(cost, unit)))

    def limit(self, budget: Budget, seed: int, *, planned: bool = True) -> tuple[str, float] | None:
        """Return what has to be metered while a search runs; None where its plan keeps the budget.

        Raises:
            UserError: the unit is worker-seconds, and the cross-regularized run has not ended.
        """
        if self.unit != "worker_seconds":
            return None if planned else (budget.unit, budget.amount)
        if seed not in self.seconds_per_flop:
            raise UserError("a budget in worker-seconds is measured on the cross-regularized run; compare it too")
        return "worker_seconds", budget.amount * self.seconds_per_flop[seed]

    @cached_property
    def space(self) -> Space:
        """What a search looks through, over the registry's ranges: exactly what the cross-regularized run learns.

        Where that is its length alone: weight decay, dropout and noise, as far as the model has a place for them.
        """
        seed = self.config.seed
        config = self.single(seed)
        if self.config.learned:
            return space_of(learned_names(config, build_model(config, self.data(seed))))
        config = resolve(TrainConfig.model_validate(config.model_dump() | self.searched()), self.data(seed))
        found = hyperparameters(build_model(config, self.data(seed)))
        own = [name for name in self._tuned if name == "weight_decay"]  # the optimizer's, which is not built here
        return space_of([*(name for name, one in found.items() if one.base in self._tuned), *own])

    @cached_property
    def places(self) -> list[str]:
        """What people tune, by regularizer, as far as the model has a place for it."""
        config = self.single(self.config.seed)
        model = build_model(config, self.data(self.config.seed))
        there = {
            "weight_decay": True,
            "dropout": bool(dropout_layers(model)) or models.takes(config.model, "dropout"),
            "noise": any(is_normalization(module) for module in model.modules()),
        }
        return [name for name, place in there.items() if place]

    @property
    def _tuned(self) -> list[str]:
        """What is searched for where nothing is learned."""
        return [] if self.config.learned else [n for n in self.places if n not in self.config.regularizers]

    def fixed(self) -> dict[str, Any]:
        """Return the configuration changes that learn nothing: every regularizer stays where it starts."""
        return {
            "regularizers": {
                name: {"learn": False, "value": one.initial, **one.options}
                for name, one in self.single(self.config.seed).regularizers.items()
            }
        }

    def searched(self) -> dict[str, Any]:
        """Return those of a search's members: `fixed`, and where nothing is learned what is searched for instead."""
        start = {name: {"learn": False, "value": description(name).default} for name in self._tuned}
        return {"regularizers": start | self.fixed()["regularizers"]}

    def regularized_by(self, **regularizers: Any) -> dict[str, Any]:
        """Return the configuration changes of a rival that regularizes by its own means, and learns nothing.

        It keeps what the comparison holds fixed (the weight decay, and what else was asked for), without what crossreg
        learns.

        Args:
            regularizers: settings or a value by name, in place of the comparison's.
        """
        config = self.single(self.config.seed)
        kept = {
            name: {"learn": False, "value": one.value, **one.options}
            for name, one in config.regularizers.items()
            if not one.learn and name.partition("/")[0] not in {*config.learned, *regularizers}
        }
        given = {name: one if isinstance(one, dict) else {"value": one} for name, one in regularizers.items()}
        return {"regularizers": {"weight_decay": {"value": config.weight_decay}, **kept, **given}}

    def own_trial(self, seed: int) -> TrialSpec:
        """Return the cross-regularized training itself."""
        return TrialSpec(config=self.reference(seed), data=self.data(seed).fingerprint)

    def trial(
        self,
        seed: int,
        *,
        amount: float | None = None,
        unit: str = "flops",
        all_data: bool = False,
        select: bool = False,
        member: int | None = None,
        schedule: Any = None,
        **changes: Any,
    ) -> TrialSpec:
        """Return a trial: `single` with changes.

        Args:
            seed: of the split, and of the training.
            amount: compute it may use; None gives it as many steps as `single` has.
            unit: of the amount.
            all_data: train on the regularization split too.
            select: the regularization split's scores decide something, so they count as compute.
            member: place in a population, whose members differ in weights and order; the splits stay the same.
            schedule: see `TrialSpec`.
            changes: fields of `TrainConfig`.
        """
        own = seed if member is None else derive_seed(seed, "member", member) % 2**31
        changes = {"seed": own, "data": self._data_config(seed, all_data).model_dump(), **changes}
        data = self.data(seed, all_data)
        config = resolve(TrainConfig.model_validate(self.single(seed).model_dump() | changes), data)
        if amount is not None:
            steps = Plan(config, data, select).steps_within(amount, unit)
            config = config.model_copy(update={"steps": steps})
        return TrialSpec(config=config, data=data.fingerprint, select=select, schedule=schedule)

    def member(self, seed: int, budget: Budget, index: int | None, **changes: Any) -> TrialSpec:
        """Return one member of a population that shares a budget equally, and of which one will be chosen.

        A member is as long as its share pays for, whatever stopping rule the cross-regularized run has. One of few
        steps is cut into fewer intervals, so that evaluating them does not eat the budget.
        """
        given = {"select": True, "member": index, "final_test": False, "stopping": {}, **changes}
        amount = budget.amount / self.population
        fewest = min(MIN_INTERVALS, self.config.evaluations)
        for evaluations in range(self.config.evaluations, fewest - 1, -1):
            spec = self.trial(seed, amount=amount, unit=budget.unit, evaluations=evaluations, **given)
            plan = Plan(spec.config, self.data(seed), select=True)
            if not plan.selection_share(spec.steps) > MAX_SELECTION:
                break
        return spec

    def given_length(self, name: str, why: str) -> None:
        """Refuse a method that needs a given length.

        Raises:
            UserError: names it, and says why.
        """
        if self.config.finds_length:
            raise UserError(
                f"method {name!r} {why}, which takes a given length; use --schedule cosine, or leave it out of "
                "--methods"
            )

    def _data_config(self, seed: int, all_data: bool) -> DataConfig:
        changes: dict[str, Any] = {"seed": seed, **({"reg_share": 0.0} if all_data else {})}
        return self.config.data.model_copy(update=changes)
