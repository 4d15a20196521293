"""A comparison in MLflow: one parent, a child for every method, budget and seed, a grandchild for every trial."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any

from crossreg.core import metrics
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job, Listener
from crossreg.services.search.budget import Budget
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.tracking import Status, Tracker, TrackingConfig, saved_run

__all__ = ["Recorder"]


class Recorder(Listener):
    """Writes what happens in a comparison into MLflow runs, nested so that the UI can fold them.

    A method that trains one trial is itself the child; one that trains several has a grandchild for each. A
    comparison that is run again in the same folder goes on with the same runs. Runs are written by a thread of their
    own: opening one takes a while, in which trials would wait for their next step.

    Args:
        tracking: which MLflow.
        conditions: of the comparison.
        folder: of the comparison; spools of the runs lie in it.
        experiment: MLflow experiment.
        name: of the parent run.
        params: of the parent run.
        tags: of the parent run.
        verbose: let MLflow write its INFO lines.
    """

    def __init__(
        self,
        tracking: TrackingConfig,
        conditions: Conditions,
        folder: Path,
        *,
        experiment: str,
        name: str,
        params: Mapping[str, Any],
        tags: Mapping[str, str],
        verbose: bool = False,
    ) -> None:
        self.tracking, self.conditions, self.folder, self.experiment = tracking, conditions, folder, experiment
        self.verbose = verbose
        self.open: dict[tuple[Job, int | None], Tracker] = {}
        self.steps: dict[Job, int] = {}
        self.parent = self._start("compare", name, params, tags, None)
        self.parent.save_views(conditions.space)
        self.parent.show_comparison(conditions.space)
        self._writer = ThreadPoolExecutor(1, "crossreg-recorder")
        self._tasks: list[Future[Any]] = []

    def started(self, job: Job, budget: Budget) -> None:
        """Open the child run."""
        self._tasks.append(self._writer.submit(self._child, job))

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        """Record an interval in its trial's run, and end the run after the last."""
        self._tasks.append(self._writer.submit(self._interval, job, trial, spec, record))

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Record the outcome and end the job's runs."""
        self._tasks.append(self._writer.submit(self._ended, job, outcome))

    def settle(self) -> None:
        """Wait until all is recorded.

        Raises:
            Exception: what first went wrong in recording.
        """
        tasks, self._tasks = self._tasks, []
        for task in tasks:
            task.result()

    def close(self, status: Status) -> None:
        """End every run that is still open, the parent last."""
        self._writer.shutdown(wait=True, cancel_futures=status != "FINISHED")
        for tracker in self.open.values():
            tracker.finish(status, timeout=10.0)
        self.open.clear()
        self.parent.finish(status)

    def _interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        nested = job.method.nested
        tracker = self._trial(job, trial, spec) if nested else self._child(job)
        for step, when, values in record.metrics:
            tracker.record(values, step, when)
        tracker.record(_named(record.given), record.until, round(1000 * record.ended))
        self.steps[job] = max(self.steps.get(job, 0), record.until)
        if nested and record.last:
            self.open.pop((job, trial)).finish("FINISHED")

    def _ended(self, job: Job, outcome: Outcome) -> None:
        tracker = self._child(job)
        outcome.run_id = tracker.run_id
        if job.method.nested:
            for point in outcome.curve:
                values = metrics.scores("reg", point.reg) | metrics.scores("test", point.test) | point.cost.as_metrics()
                tracker.record(values, point.step)
        last = max(self.steps.get(job, 0), outcome.curve[-1].step if outcome.curve else 0) + 1
        final = metrics.scores("test", outcome.test) | metrics.scores("test_scaled", outcome.test_scaled)
        tracker.record(final | _named(outcome.regularizers) | outcome.cost.as_metrics(), last)
        tracker.artifact("outcome.json", outcome.model_dump_json(indent=1).encode())
        for key in [key for key in self.open if key[0] == job]:
            self.open.pop(key).finish("FINISHED")

    def _child(self, job: Job) -> Tracker:
        if (job, None) not in self.open:
            of = self.conditions
            config = of.reference(job.seed) if job.method.is_reference else of.single(job.seed)
            params = {
                **config.model_dump(mode="json", exclude_none=True),
                "method": job.method.name,
                "budget": job.budget,
            }
            tags = {**_tags(job.method, job), "kind": "method"}
            self.open[job, None] = self._start(job.name, _name(job), params, tags, self.parent.run_id)
        return self.open[job, None]

    def _trial(self, job: Job, trial: int, spec: TrialSpec) -> Tracker:
        if (job, trial) not in self.open:
            parent = self._child(job).run_id
            tags = {**_tags(job.method, job), "kind": "trial", "trial_id": f"{trial:02d}"}
            params = spec.config.model_dump(mode="json", exclude_none=True)
            folder, name = f"{job.name}-{trial:02d}", f"{_name(job)}-{trial:02d}"
            self.open[job, trial] = self._start(folder, name, params, tags, parent)
        return self.open[job, trial]

    def _start(
        self, folder: str, name: str, params: Mapping[str, Any], tags: Mapping[str, str], parent: str | None
    ) -> Tracker:
        spool = self.folder / "tracking" / folder
        saved = saved_run(spool)
        return Tracker.start(
            self.tracking,
            experiment=self.experiment,
            run_name=name,
            params=params,
            tags={**tags, **({"mlflow.parentRunId": parent, "comparison": self.parent.run_id} if parent else {})},
            spool_dir=spool,
            resume_run_id=saved.run_id if saved else None,
            system_interval=None,
            verbose=self.verbose,
        )


def _name(job: Job) -> str:
    """Return the name of a job's run: a method that takes any budget says which."""
    budget = f"-{job.budget}" if job.method.searches else ""
    return f"{job.method.name}{budget}-s{job.seed}"


def _tags(method: Method, job: Job) -> dict[str, str]:
    group = f"{method.name} ({job.budget})" if method.searches else method.name
    return {"group": group, "method": method.name, "seed": str(job.seed), "budget": job.budget}


def _named(values: Mapping[str, float]) -> dict[str, float]:
    """Return values of hyperparameters under their metric keys."""
    return {metrics.hyperparameter(name): value for name, value in values.items()}
