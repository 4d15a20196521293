"""What most people do: weight decay, dropout and early stopping."""

from __future__ import annotations

from crossreg.regularizers.registry import description
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method, PopulationSearch, Run, Trials, sample, with_dropout
from crossreg.services.search.budget import Budget
from crossreg.services.search.space import space_of
from crossreg.services.search.spec import TrialSpec, Values, selection_score

__all__ = ["Tuned", "WeightDecayDropout"]

# the registry's are PyTorch's: AdamW's weight_decay and Dropout's p
DEFAULTS = {name: description(name).default or 0.0 for name in ("weight_decay", "dropout")}
PATIENCE = 5


class WeightDecayDropout(Method):
    """The libraries' defaults; stops when the regularization split has not improved for five intervals."""

    name = "weight-decay-dropout"
    summary = "weight decay 0.01, dropout 0.5 and early stopping"

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train once and take the interval that was best on the regularization split."""
        spec = conditions.trial(
            seed,
            amount=budget.amount,
            unit=budget.unit,
            select=True,
            stopping={"patience": PATIENCE},
            interim_test=None,  # the interval that is chosen need not be the last
            **with_dropout(conditions, DEFAULTS["dropout"], weight_decay=DEFAULTS["weight_decay"]),
        )
        (trial,) = yield Trials([spec])
        chosen = min(trial.records, key=lambda record: selection_score(record, "nll"))
        return self.outcome([trial], chosen, seed, budget)


class Tuned(PopulationSearch):
    """Random search over weight decay and dropout."""

    name = "weight-decay-dropout-tuned"
    summary = "random search over weight decay and dropout"

    def specs(self, conditions: Conditions, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return members with dropout and no noise."""
        changes = with_dropout(conditions, DEFAULTS["dropout"])
        return [conditions.member(seed, budget, index, **changes) for index in range(conditions.population)]

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return sampled weight decay and dropout."""
        return [sample(space_of(DEFAULTS), seed, index) for index in range(size)]
