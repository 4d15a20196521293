"""Deep ensembles: plain trainings that differ in their weights' start and order, averaged.

Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
"""

from __future__ import annotations

import torch

from crossreg.core.errors import UserError
from crossreg.prediction import calibration
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method, Run, Trials
from crossreg.services.search.budget import Budget
from crossreg.services.search.trial import read_predictions
from crossreg.services.training.result import calibrated

__all__ = ["Ensemble"]


class Ensemble(Method):
    """As many members as the population has; under a matched budget each is that much shorter."""

    name = "ensemble"
    summary = "deep ensemble, one training a member of the population, without what crossreg learns"
    searches = True

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train the members and average their predictions.

        Raises:
            UserError: the task is no classification, whose probabilities can be averaged.
        """
        if conditions.data(seed).task != "classification":
            name = conditions.config.data.name
            raise UserError(f"method 'ensemble' averages class probabilities, but {name} has none")
        share = budget.amount / conditions.population
        trials = yield Trials(
            [
                conditions.trial(seed, member=member, amount=share, unit=budget.unit, **conditions.regularized_by())
                for member in range(conditions.population)
            ]
        )
        members = [read_predictions(trial.states, trial.final.state) for trial in trials]
        together = {
            split: {
                "mean": torch.stack([member[split]["mean"] for member in members]).mean(0),
                "targets": members[0][split]["targets"],
            }
            for split in members[0]
        }
        scores = {
            split: calibration.score(values["mean"], values["targets"]).as_dict() for split, values in together.items()
        }
        return self.outcome(
            trials,
            trials[0].final,
            seed,
            budget,
            test=scores["test"],
            reg=scores.get("reg", {}),
            curve=[],
            members=[],
            **calibrated(together),
        )
