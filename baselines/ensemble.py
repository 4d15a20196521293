"""Deep ensembles: plain trainings that differ in their weights' start and order, averaged.

Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
"""

from __future__ import annotations

import torch

from services.comparison.method import Method, Run, Study, Trials
from crossreg.prediction import calibration
from crossreg.core.errors import UserError
from services.search.budget import Budget
from services.search.outcome import reliability_of, scaled_scores
from services.search.trial import read_predictions

__all__ = ["Ensemble"]


class Ensemble(Method):
    """As many members as the population has; under a matched budget each is that much shorter."""

    name = "ensemble"
    summary = "deep ensemble of trainings without noise, one a member of the population"
    searches = True

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train the members and average their predictions.

        Raises:
            UserError: the task is no classification, whose probabilities can be averaged.
        """
        if study.data(seed).task != "classification":
            raise UserError(f"method 'ensemble' averages class probabilities, but {study.config.data.name} has none")
        share = budget.amount / study.population
        trials = yield Trials(
            [
                study.trial(seed, method="none", member=member, amount=share, unit=budget.unit)
                for member in range(study.population)
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
        scaled, temperature = scaled_scores(together)
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
            test_scaled=scaled,
            temperature=temperature,
            reliability=reliability_of(together),
            curve=[],
            members=[],
        )
