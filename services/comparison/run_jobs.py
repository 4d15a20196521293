"""Running methods side by side: trials of all that wait are run together, searches one after another."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from services.comparison.method import Method, Run, Study, Trials
from services.search.budget import Budget
from services.search.outcome import Outcome
from services.search.run import Search, SearchError, TrialResult, run_search
from services.search.spec import Record, TrialSpec
from services.search.trial import States

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
    jobs: list[Job], study: Study, folder: Path, listener: Listener | None = None, **placement: Any
) -> list[Outcome]:
    """Run jobs and return their outcomes, in their order.

    Outcomes that lie in the folder are not computed again, and neither are finished intervals of the others.

    Args:
        jobs: what to run.
        study: what is compared.
        folder: of this comparison.
        listener: is told what happens.
        placement: `gpu`, `cpus_per_trial`, `max_failures` and `verbose` of `services.search.run.run_search`.

    Raises:
        SearchError: a trial failed that is not one of a search, or one of a search before its first interval.
    """
    import ray

    listener = listener or Listener()
    folder.mkdir(parents=True, exist_ok=True)
    outcomes: dict[Job, Outcome] = {}
    references: dict[str, Any] = {}

    def refer(specs: list[TrialSpec], seed: int) -> dict[str, Any]:
        for all_data in (False, True):
            data = study.data(seed, all_data)
            if data.fingerprint not in references and any(spec.data == data.fingerprint for spec in specs):
                references[data.fingerprint] = ray.put(data)
        return {spec.data: references[spec.data] for spec in specs}

    active: list[_Active] = []

    def start(job: Job) -> None:
        saved = folder / job.name / "outcome.json"
        if saved.exists():
            finish(job, Outcome.model_validate_json(saved.read_bytes()))
            return
        budget = study.budget(job.budget, job.seed)
        listener.started(job, budget)
        run = job.method.run(study, job.seed, budget)
        active.append(_Active(job, run, next(run)))

    def finish(job: Job, outcome: Outcome) -> None:
        outcomes[job] = outcome
        if job.method.name == "crossreg":
            study.seconds[job.seed] = outcome.cost.worker_seconds / outcome.cost.flops
        listener.ended(job, outcome)

    def hand_back(entry: _Active, results: list[TrialResult]) -> None:
        entry.trials += len(results)
        try:
            entry.request = entry.run.send(results)
        except StopIteration as stop:
            active.remove(entry)
            _save(folder / entry.job.name, stop.value)
            finish(entry.job, stop.value)

    def wave(entries: list[_Active]) -> None:
        """Run the trials of several jobs together."""
        # equal trials, such as the run that a refit starts with, are trained once
        specs = list({_key(spec): spec for entry in entries for spec in _specs(entry)}.values())
        places = {_key(spec): place for place, spec in enumerate(specs)}
        owners: list[list[tuple[_Active, int]]] = [[] for _ in specs]
        data: dict[str, Any] = {}
        for entry in entries:
            data |= refer(_specs(entry), entry.job.seed)
            for index, spec in enumerate(_specs(entry)):
                owners[places[_key(spec)]].append((entry, entry.trials + index))

        def watch(place: int, spec: TrialSpec, record: Record) -> None:
            for entry, index in owners[place]:
                listener.interval(entry.job, index, spec, record)

        results = run_search(Search(specs), data, folder / "trials", watch=watch, **placement)
        for result in results:
            if result.error is not None:  # in a search it would lose; here it is what was asked for
                name = owners[result.index][0][0].job.name
                raise SearchError(f"{name} ended at step {result.final.until} of {result.spec.steps}: {result.error}")
        for entry in entries:
            hand_back(entry, [results[places[_key(spec)]] for spec in _specs(entry)])

    def search(entry: _Active) -> None:
        assert isinstance(entry.request, Search)
        own = folder / entry.job.name

        def watch(index: int, spec: TrialSpec, record: Record) -> None:
            listener.interval(entry.job, entry.trials + index, spec, record)

        data = refer(entry.request.specs, entry.job.seed)
        results = run_search(entry.request, data, own / f"search-{entry.searches}", watch=watch, **placement)
        entry.searches += 1
        hand_back(entry, results)
        if entry not in active:  # what it chose has been read
            for path in own.glob("search-*/states"):
                States(path).keep_only(set())

    # the reference first: budgets in seconds are measured on it
    first = [job for job in jobs if job.method.name == "crossreg"]
    for group in (first, [job for job in jobs if job not in first]):
        for job in group:
            start(job)
        if group is first and study.unit != "worker_seconds":
            continue
        while active:
            waiting = [entry for entry in active if isinstance(entry.request, Trials)]
            if waiting:
                wave(waiting)
            else:
                search(active[0])
    shutil.rmtree(folder / "trials", ignore_errors=True)
    return [outcomes[job] for job in jobs]


def _specs(entry: _Active) -> list[TrialSpec]:
    assert isinstance(entry.request, Trials)
    return entry.request.specs


def _key(spec: TrialSpec) -> tuple[str, int | None]:
    return spec.digest, spec.patience


def _save(folder: Path, outcome: Outcome) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    draft = folder / "outcome.json.tmp"
    draft.write_text(outcome.model_dump_json())
    draft.replace(folder / "outcome.json")
