"""Cross-regularization itself: one run that learns its noise."""

from __future__ import annotations

from services.comparison.method import Method, Run, Study, Trials
from services.search.budget import Budget
from services.search.outcome import schedule_of

__all__ = ["CrossReg", "Refit"]


class CrossReg(Method):
    """One run; its compute is what "matched" means."""

    name = "crossreg"
    summary = "cross-regularization: one run that learns its noise scales"

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train once."""
        (trial,) = yield Trials([study.trial(seed, method="crossreg")])
        return self.outcome([trial], trial.final, seed, budget)


class Refit(Method):
    """Learns the noise, then trains once more on all data with the learned schedule; costs two runs."""

    name = "crossreg-refit"
    summary = "the learned schedule of noise scales replayed on training and regularization split together"
    own_budget = "2"

    def run(self, study: Study, seed: int, budget: Budget) -> Run:
        """Train, then replay."""
        (learned,) = yield Trials([study.trial(seed, method="crossreg")])
        schedule = schedule_of(learned.lineage)
        (refitted,) = yield Trials([study.trial(seed, method="fixed", all_data=True, schedule=schedule)])
        return self.outcome([learned, refitted], refitted.final, seed, budget, members=[])
