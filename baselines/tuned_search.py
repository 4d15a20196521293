"""What a careful person does by hand: trainings with other learning rates, lengths and regularization, the best kept.

What is drawn, and from where, is in `crossreg.services.training.tuning`.
"""

from __future__ import annotations

from pathlib import Path

from crossreg.prediction import calibration
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.budget import Budget
from crossreg.services.search.search import TrialResult
from crossreg.services.search.spec import Record, TrialSpec, Values, selection_score
from crossreg.services.search.trial import read_predictions
from crossreg.services.training.result import are_probabilities
from crossreg.services.training.tuning import draw, training_changes

__all__ = ["TunedSearch"]


class TunedSearch(PopulationSearch):
    """As many trainings as the population has members, the first of them the default, none of them cut off.

    They share the budget by the lengths that were drawn, and are judged after temperature scaling.
    """

    name = "tuned-search"
    summary = "random search over learning rate, length, weight decay, dropout, noise and label smoothing"

    def specs(self, conditions: Conditions, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return the trainings that were drawn."""
        data = conditions.data(seed)
        # draws of its own for every data set
        drawn = [draw(Path(data.name).stem, seed, index) for index in range(conditions.population)]
        whole = budget.amount / sum(values["length"] for values in drawn)
        optimizer = conditions.single(seed).optimizer.model_dump()
        specs = []
        for index, given in enumerate(drawn):
            # a model without a place for one is searched over the others
            values = given | {name: 0.0 for name in ("dropout", "noise") if name not in conditions.places}
            changes = training_changes(values, data.task == "classification")
            changes["optimizer"] = optimizer | changes["optimizer"]
            changes["regularizers"] = conditions.regularized_by(**changes["regularizers"])["regularizers"]
            specs.append(
                conditions.trial(
                    seed,
                    amount=whole * values["length"],
                    unit=budget.unit,
                    select=True,
                    member=index,
                    evaluations=1,
                    final_test=False,
                    stopping={},
                    **changes,
                )
            )
        return specs

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return nothing to set: a training is drawn as a whole."""
        return [{} for _ in range(size)]

    def best(self, trials: list[TrialResult], conditions: Conditions) -> Record:
        """Return the one with the best held-out score after temperature scaling."""

        def score(trial: TrialResult) -> float:
            reg = read_predictions(trial.states, trial.final.state)["reg"]
            if conditions.select_on != "nll" or not are_probabilities(reg):
                return selection_score(trial.final, conditions.select_on)
            return calibration.temperature_scaled(reg["mean"], reg["targets"], reg["mean"], reg["targets"])[0].nll

        return min((trial for trial in trials if trial.complete), key=score, default=trials[0]).final
