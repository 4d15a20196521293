"""What most people do: weight decay, dropout and early stopping."""

from __future__ import annotations

from services.comparison.method import Method, PopulationSearch, Run, Space, Study, Trials, sample, with_dropout
from crossreg.regularizers.knobs import DROPOUT, WEIGHT_DECAY
from services.search.budget import Budget
from services.search.spec import Knobs, TrialSpec, rank

__all__ = ["Tuned", "WeightDecayDropout"]

# PyTorch's defaults of AdamW's weight_decay and of Dropout's p
DEFAULTS = {WEIGHT_DECAY: 0.01, DROPOUT: 0.5}
SPACE: Space = {WEIGHT_DECAY: (1e-4, 1.0), DROPOUT: (0.05, 0.8)}
PATIENCE = 5


class WeightDecayDropout(Method):
    """The libraries' defaults; stops when the regularization split has not improved for five intervals."""

    name = "weight-decay-dropout"
    summary = "weight decay 0.01, dropout 0.5 and early stopping"

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train once and take the interval that was best on the regularization split."""
        spec = study.trial(
            seed,
            amount=budget.amount,
            unit=budget.unit,
            select=True,
            patience=PATIENCE,
            interim_test=None,  # the interval that is chosen need not be the last
            knobs=DEFAULTS,
            **with_dropout(study, DEFAULTS[DROPOUT]),
        )
        (trial,) = yield Trials([spec])
        chosen = min(trial.records, key=lambda record: rank(record, "nll"))
        return self.outcome([trial], chosen, seed, budget)


class Tuned(PopulationSearch):
    """Random search over weight decay and dropout."""

    name = "weight-decay-dropout-tuned"
    summary = "random search over weight decay and dropout"

    def specs(self, study: Study, seed: int, budget: Budget) -> list[TrialSpec]:
        """Return members with dropout and no noise."""
        changes = with_dropout(study, DEFAULTS[DROPOUT])
        return [study.member(seed, budget, index, **changes) for index in range(study.population)]

    def starts(self, study: Study, seed: int, size: int) -> list[Knobs]:
        """Return sampled weight decay and dropout."""
        return [sample(SPACE, seed, index) for index in range(size)]
