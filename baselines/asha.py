"""Successive halving over all that the cross-regularized run learns.

Source: Li et al. 2020, A System for Massively Parallel Hyperparameter Tuning, arXiv:1810.05934, as Ray Tune has it.
"""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.budget import Budget
from crossreg.services.search.spec import TrialSpec

__all__ = ["ASHA"]

REDUCTION = 3
# what early stopping saves buys more trials, until the budget is spent
MORE_TRIALS = 4


class ASHA(PopulationSearch):
    """Random search that stops the worse two thirds at each rung and spends what it saves on more trials."""

    name = "asha"
    summary = "asynchronous successive halving over all that crossreg learns"
    planned = False

    def specs(self, conditions: Conditions, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return more members than the budget would pay for if none were stopped."""
        number = MORE_TRIALS * conditions.population
        return [conditions.member(seed, budget, index, **conditions.searched()) for index in range(number)]

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return Ray Tune's scheduler."""
        from ray.tune.schedulers import ASHAScheduler

        evaluations = specs[0].config.evaluations
        scheduler = ASHAScheduler(
            time_attr="training_iteration",
            metric="score",
            mode="min",
            max_t=evaluations + 1,  # trials end by themselves
            grace_period=max(1, evaluations // REDUCTION**2),
            reduction_factor=REDUCTION,
        )
        return {"scheduler": scheduler}
