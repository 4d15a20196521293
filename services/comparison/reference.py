"""Cross-regularization itself as methods of a comparison: one run that learns, and the same refitted on all data."""

from __future__ import annotations

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method, Run, Trials
from crossreg.services.search.budget import Budget
from crossreg.services.search.trial import schedule_of

__all__ = ["CrossReg", "Refit"]


class CrossReg(Method):
    """One run; its compute is what "matched" means."""

    name = "crossreg"
    summary = "cross-regularization: one run that learns its regularization"
    is_reference = True

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train once."""
        (trial,) = yield Trials([conditions.own_trial(seed)])
        return self.outcome([trial], trial.final, seed, budget)


class Refit(Method):
    """Learns, then trains once more on all data with the learned schedule; costs two runs."""

    name = "crossreg-refit"
    summary = "the learned schedule replayed on training and regularization split together"
    own_budget = "2"

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        """Train, then replay."""
        conditions.given_length(self.name, "repeats what crossreg learned step by step")
        (learned,) = yield Trials([conditions.own_trial(seed)])
        schedule = schedule_of(learned.lineage)
        (refitted,) = yield Trials([conditions.trial(seed, all_data=True, schedule=schedule, **conditions.fixed())])
        return self.outcome([learned, refitted], refitted.final, seed, budget, members=[])
