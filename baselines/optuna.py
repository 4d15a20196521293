"""Bayesian optimization (tree-structured Parzen estimators) of every layer's noise scale, by Optuna.

Source: Bergstra et al. 2011; Akiba et al. 2019, arXiv:1907.10902. BOHB is not among the baselines: Ray Tune's needs
hpbandster, whose last release is of November 2018 and pulls in Pyro4 and netifaces.
"""

from __future__ import annotations

from typing import Any

from services.comparison.method import PopulationSearch, Study
from crossreg.core.errors import UserError
from services.search.budget import Budget
from services.search.spec import Knobs, TrialSpec, tune_name

__all__ = ["Optuna"]


class Optuna(PopulationSearch):
    """As many trials as the population has members, each proposed from those before."""

    name = "optuna"
    summary = "Bayesian optimization (Optuna's TPE) of every layer's noise scale"

    def specs(self, study: Study, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return the one specification that all share: what is proposed differs, the weights' start does not."""
        return [study.member(seed, budget, None, method="fixed")]

    def starts(self, study: Study, seed: int, size: int) -> list[Knobs]:
        """Return nothing: every start is proposed."""
        return []

    def how(self, study: Study, seed: int, specs: list[TrialSpec]) -> dict[str, Any]:
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

        def searcher(earlier: list[Knobs]) -> Any:
            # what was proposed before a search was stopped is proposed first, so nothing of it is lost
            points = [{tune_name(name): value for name, value in knobs.items()} for knobs in earlier]
            return OptunaSearch(metric="score", mode="min", seed=seed, points_to_evaluate=points or None)

        return {
            "searcher": searcher,
            "space": {name: tune.loguniform(low, high) for name, (low, high) in study.noise_space.items()},
            "num_samples": study.population,
        }
