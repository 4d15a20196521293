"""Running methods side by side: trials of all that wait are run together, searches one after another."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method, Run, Trials
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.data import Dataset
from crossreg.services.search.budget import Budget
from crossreg.services.search.here import require_plain
from crossreg.services.search.run import run_search
from crossreg.services.search.search import Search, SearchError, TrialResult
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.search.trial import States

__all__ = ["Job", "Listener", "run_jobs"]


@dataclass(frozen=True)
class Job:
    """A method on one seed under one budget."""

    method: Method
    budget: str
    seed: int

    @property
    def name(self) -> str:
        """Name of its folder and run."""
        return f"{self.method.name}-{self.budget}-s{self.seed}"


class Listener:
    """Is told what happens; override what you need."""

    def started(self, job: Job, budget: Budget) -> None:
        """Called when a method is first asked what to run."""

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        """Called with every interval of every trial, also those that were done before."""

    def ended(self, job: Job, outcome: Outcome) -> None:
        """Called with every outcome, also those that were there already."""


@dataclass
class _Active:
    job: Job
    run: Run
    request: Trials | Search
    trials: int = 0  # trials handed back so far
    searches: int = 0


def run_jobs(
    jobs: list[Job], conditions: Conditions, folder: Path, listener: Listener | None = None, **placement: Any
) -> list[Outcome]:
    """Run jobs and return their outcomes, in their order.

    Outcomes that lie in the folder are not computed again, and neither are finished intervals of the others.

    Args:
        jobs: what to run.
        conditions: of the comparison.
        folder: of this comparison.
        listener: is told what happens.
        placement: `gpu`, `cpus_per_trial`, `max_failures` and `verbose` of `crossreg.services.search.run.run_search`.

    Raises:
        SearchError: a trial failed that is not one of a search, or one of a search before its first interval.
    """
    folder.mkdir(parents=True, exist_ok=True)
    running = _Running(conditions, folder, listener or Listener(), placement)
    # the reference first: budgets in seconds are measured on it
    first = [job for job in jobs if job.method.is_reference]
    for group in (first, [job for job in jobs if job not in first]):
        for job in group:
            running.start(job)
        if group is not first or conditions.unit == "worker_seconds":
            running.to_the_end()
    shutil.rmtree(folder / "trials", ignore_errors=True)
    return [running.outcomes[job] for job in jobs]


class _Running:
    """The jobs that run now: each is asked what it wants, and handed what came of it."""

    def __init__(self, conditions: Conditions, folder: Path, listener: Listener, placement: dict[str, Any]) -> None:
        self.conditions, self.folder, self.listener, self.placement = conditions, folder, listener, placement
        self.outcomes: dict[Job, Outcome] = {}
        self.active: list[_Active] = []
        self._references: dict[str, Any] = {}

    def start(self, job: Job) -> None:
        """Ask a job for its first request, unless its outcome is there."""
        saved = self.folder / job.name / "outcome.json"
        if saved.exists():
            self._finish(job, Outcome.model_validate_json(saved.read_bytes()))
            return
        budget = self.conditions.budget(job.budget, job.seed)
        self.listener.started(job, budget)
        run = job.method.run(self.conditions, job.seed, budget)
        request = next(run)
        if isinstance(request, Search) and self.placement.get("cpus_per_trial") == 0:
            require_plain(request, f"the search of {job.method.name}")
        self.active.append(_Active(job, run, request))

    def to_the_end(self) -> None:
        """Run what the jobs ask for until none asks for more."""
        while self.active:
            waiting = [entry for entry in self.active if isinstance(entry.request, Trials)]
            if waiting:
                self._run_trials(waiting)
            else:
                self._run_search(self.active[0])

    def _run_trials(self, entries: list[_Active]) -> None:
        """Run the trials of several jobs together."""
        # equal trials, such as the run that a refit starts with, are trained once
        specs = list({_key(spec): spec for entry in entries for spec in _specs(entry)}.values())
        places = {_key(spec): place for place, spec in enumerate(specs)}
        owners: list[list[tuple[_Active, int]]] = [[] for _ in specs]
        data: dict[str, Any] = {}
        for entry in entries:
            data |= self._refer(_specs(entry), entry.job.seed)
            for index, spec in enumerate(_specs(entry)):
                owners[places[_key(spec)]].append((entry, entry.trials + index))

        def watch(place: int, spec: TrialSpec, record: Record) -> None:
            for entry, index in owners[place]:
                self.listener.interval(entry.job, index, spec, record)

        results = run_search(Search(specs), data, self.folder / "trials", watch=watch, **self.placement)
        for result in results:
            if result.error is not None:  # in a search it would lose; here it is what was asked for
                name = owners[result.index][0][0].job.name
                raise SearchError(f"{name} ended at step {result.final.until} of {result.spec.steps}: {result.error}")
        for entry in entries:
            self._hand_back(entry, [results[places[_key(spec)]] for spec in _specs(entry)])

    def _run_search(self, entry: _Active) -> None:
        assert isinstance(entry.request, Search)
        own = self.folder / entry.job.name

        def watch(index: int, spec: TrialSpec, record: Record) -> None:
            self.listener.interval(entry.job, entry.trials + index, spec, record)

        data = self._refer(entry.request.specs, entry.job.seed)
        results = run_search(entry.request, data, own / f"search-{entry.searches}", watch=watch, **self.placement)
        entry.searches += 1
        self._hand_back(entry, results)
        if entry not in self.active:  # what it chose has been read
            for path in own.glob("search-*/states"):
                States(path).keep_only(set())

    def _hand_back(self, entry: _Active, results: list[TrialResult]) -> None:
        entry.trials += len(results)
        try:
            entry.request = entry.run.send(results)
        except StopIteration as stop:
            self.active.remove(entry)
            _save(self.folder / entry.job.name, stop.value)
            self._finish(entry.job, stop.value)

    def _finish(self, job: Job, outcome: Outcome) -> None:
        self.outcomes[job] = outcome
        if job.method.is_reference:
            self.conditions.seconds_per_flop[job.seed] = outcome.cost.worker_seconds / outcome.cost.flops
        self.listener.ended(job, outcome)

    def _refer(self, specs: list[TrialSpec], seed: int) -> dict[str, Any]:
        """Return Ray's references of the datasets that trials need, each put into its store once, or the datasets."""
        for all_data in (False, True):
            data = self.conditions.data(seed, all_data)
            if data.fingerprint not in self._references and any(spec.data == data.fingerprint for spec in specs):
                self._references[data.fingerprint] = self._shared(data)
        return {spec.data: self._references[spec.data] for spec in specs}

    def _shared(self, data: Dataset) -> Any:
        if self.placement.get("cpus_per_trial") == 0:
            return data
        import ray

        return ray.put(data)


def _specs(entry: _Active) -> list[TrialSpec]:
    assert isinstance(entry.request, Trials)
    return entry.request.specs


def _key(spec: TrialSpec) -> tuple[str, str]:
    return spec.digest, str(spec.config.stopping)


def _save(folder: Path, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "outcome.json.tmp"
    draft.write_text(outcome.model_dump_json())
    draft.replace(folder / "outcome.json")
