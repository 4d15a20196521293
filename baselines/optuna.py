"""Bayesian optimization (tree-structured Parzen estimators) of all that the cross-regularized run learns, by Optuna.

Source: Bergstra et al. 2011; Akiba et al. 2019, arXiv:1907.10902. BOHB is not among the baselines: Ray Tune's needs
hpbandster, whose last release is of November 2018 and pulls in Pyro4 and netifaces.
"""

from __future__ import annotations

from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.budget import Budget
from crossreg.services.search.space import position_key
from crossreg.services.search.spec import TrialSpec, Values

__all__ = ["Optuna"]


class Optuna(PopulationSearch):
    """As many trials as the population has members, each proposed from those before."""

    name = "optuna"
    summary = "Bayesian optimization (Optuna's TPE) of all that crossreg learns"

    def specs(self, conditions: Conditions, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return the one specification that all share: what is proposed differs, the weights' start does not."""
        return [conditions.member(seed, budget, None, **conditions.searched())]

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return nothing: every start is proposed."""
        return []

    def how(self, conditions: Conditions, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
        """Return Ray Tune's Optuna searcher and what it looks through.

        Raises:
            UserError: the package is missing.
        """
        from ray import tune

        try:
            import optuna
        except ImportError as error:
            raise UserError(
                "method 'optuna' needs the package; install it with: pip install 'crossreg[baselines]'"
            ) from error
        from ray.tune.search.optuna import OptunaSearch

        optuna.logging.set_verbosity(optuna.logging.WARNING)

        def searcher(earlier: list[Values]) -> Any:
            # what was proposed before a search was stopped is proposed first, so nothing of it is lost
            return OptunaSearch(metric="score", mode="min", seed=seed, points_to_evaluate=earlier or None)

        return {
            "searcher": searcher,
            "space": {position_key(name): tune.uniform(0, 1) for name in conditions.space},
            "num_samples": conditions.population,
        }
