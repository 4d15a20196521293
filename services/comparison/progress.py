"""What a person sees while a comparison runs: one bar over all of it, and a line for everything that ends."""

from __future__ import annotations

from rich.console import Console

from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job
from crossreg.services.comparison.session import ComparisonDisplay
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.training.progress import ProgressLine

__all__ = ["CompareBar"]


class CompareBar(ProgressLine, ComparisonDisplay):
    """What runs, the share of the compute that is done and the time left of a comparison."""

    def __init__(self, console: Console) -> None:
        super().__init__(console, "{task.percentage:>3.0f}%  {task.fields[detail]}")
        self._amounts: dict[Job, float] = {}
        self._spent: dict[Job, float] = {}
        self._unit = "flops"
        self._ended = 0

    def plan(self, amounts: dict[Job, float], unit: str) -> None:
        """Set the length of the bar."""
        self._amounts, self._unit = amounts, unit
        self._progress.update(self._task, total=sum(amounts.values()))

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        """Move the bar by what the interval cost."""
        self._spent[job] = self._spent.get(job, 0.0) + float(getattr(record.cost, self._unit))
        reg = record.scores.get("reg", {}).get("nll")
        member = f" trial {trial}" if job.method.nested else ""
        score = "" if reg is None else f", reg NLL {reg:.3f}"
        detail = f"{self._ended}/{len(self._amounts)} done  {job.name}{member} step {record.until}/{spec.steps}{score}"
        self._progress.update(self._task, description="comparing", completed=self._completed(), detail=detail)

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Print a line."""
        self._ended += 1
        self._spent[job] = self._amounts.get(job, 0.0)
        scores = "  ".join(
            f"{name} {outcome.test[name]:.1%}" if name == "accuracy" else f"{name.upper()} {outcome.test[name]:.3f}"
            for name in ("accuracy", "nll", "ece", "rmse")
            if name in outcome.test
        )
        done = f"{self._ended}/{len(self._amounts)}"
        self.note(f"{done:>6}  {job.name:<32} {scores}")
        self._progress.update(self._task, completed=self._completed(), detail=f"{done} done")

    def _completed(self) -> float:
        return sum(min(spent, self._amounts.get(job, spent)) for job, spent in self._spent.items())
