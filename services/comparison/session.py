"""What comparisons and replays share: the splits, a Ray, the MLflow runs, and how all of it ends."""

from __future__ import annotations

import functools
import signal
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.recording import Recorder
from crossreg.services.comparison.run_jobs import Job, Listener, run_jobs
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.services.search.budget import Budget
from crossreg.services.search.search import SearchError
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.describe import command, slug
from crossreg.services.training.driver import quiet_stdout
from crossreg.services.training.errors import TrainingError, TrainingInterruptedError
from crossreg.services.training.resolve import with_model
from crossreg.services.training.runtime import check_placement, start_ray
from crossreg.services.training.storage import RunFolder, check_storage, is_remote, new_name

__all__ = ["ComparisonDisplay", "Session", "check_placed", "make_conditions", "run_methods", "session"]


class ComparisonDisplay(Listener):
    """Where a comparison shows what it does; this one shows nothing."""

    def phase(self, text: str) -> None:
        """Say what is being prepared or finished."""

    def note(self, text: str) -> None:
        """Say something that should stay on the screen."""

    def plan(self, amounts: dict[Job, float], unit: str) -> None:
        """Say what each job may spend."""


@dataclass
class _Both(Listener):
    """Tells several listeners."""

    listeners: list[Listener] = field(default_factory=list)

    def started(self, job: Job, budget: Budget) -> None:
        for listener in self.listeners:
            listener.started(job, budget)

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        for listener in self.listeners:
            listener.interval(job, trial, spec, record)

    def ended(self, job: Job, outcome: Outcome) -> None:
        for listener in self.listeners:
            listener.ended(job, outcome)


class Stopping(Listener):
    """Ctrl-C and SIGTERM (`ray job stop`, a batch system), which end a run alike: with `KeyboardInterrupt`.

    An exception that a signal raises can get lost where Python ignores exceptions (a finalizer, a callback from C); so
    it is raised again at the next thing that happens.
    """

    def __init__(self) -> None:
        self.asked = False

    def check(self) -> None:
        """Raise `KeyboardInterrupt` if a signal has come."""
        if self.asked:
            raise KeyboardInterrupt

    def started(self, job: Job, budget: Budget) -> None:
        self.check()

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        self.check()

    @contextmanager
    def listening(self) -> Iterator[None]:
        """Take the signals, in the main thread; elsewhere they are not ours to take."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        before = {number: signal.signal(number, self._stop) for number in (signal.SIGINT, signal.SIGTERM)}
        try:
            yield
            self.check()
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)

    def _stop(self, number: int, frame: Any) -> None:
        self.asked = True
        raise KeyboardInterrupt


@dataclass
class Session:
    """A running comparison or replay.

    Attributes:
        conditions: of the comparison.
        placement: where.
        folder: its files.
        recorder: its MLflow runs.
        display: where it shows what it does.
        stopping: whether the user wants it to end.
    """

    conditions: Conditions
    placement: Placement
    folder: Path
    recorder: Recorder
    display: ComparisonDisplay
    stopping: Stopping

    @property
    def parent(self) -> Tracker:
        """The parent MLflow run."""
        return self.recorder.parent

    def run_jobs(self, jobs: list[Job]) -> list[Outcome]:
        """Run jobs and return their outcomes once all of it is recorded."""
        outcomes = run_jobs(
            jobs,
            self.conditions,
            self.folder,
            _Both([self.stopping, self.recorder, self.display]),
            gpu=self.placement.gpu,
            cpus_per_trial=self.placement.workers,
            max_failures=self.placement.max_failures,
            verbose=self.placement.verbose,
        )
        self.recorder.settle()
        return outcomes


def check_placed(placement: Placement) -> str:
    """Return the storage folder of something that may run there.

    Raises:
        UserError: more CPUs or GPUs than there are, an unwritable folder, or storage that is none.
    """
    check_placement(placement)
    storage_path = check_storage(placement.storage_path)
    if is_remote(storage_path):
        raise UserError(
            f"storage path is {storage_path!r}; this needs a folder, one that all machines of a cluster share"
        )
    return storage_path


def make_conditions(
    training: TrainConfig, population: int = 8, unit: str = "flops", select_on: str = "nll"
) -> Conditions:
    """Return the conditions of a comparison whose datasets are loaded once each."""
    loader = functools.lru_cache(maxsize=None)(_load)
    training = with_model(training, loader(training.data.model_dump_json()))
    return Conditions(training, lambda data: loader(data.model_dump_json()), population, unit, select_on)


def _load(config: str) -> Dataset:
    return load_data(DataConfig.model_validate_json(config))


@contextmanager
def session(
    conditions: Conditions,
    placement: Placement,
    tracking: TrackingConfig,
    folder: RunFolder,
    *,
    kind: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
    note: str,
    display: ComparisonDisplay,
) -> Iterator[Session]:
    """Start Ray, open the MLflow runs, and end both, whatever happens in between.

    Args:
        conditions: of the comparison.
        placement: where.
        tracking: which MLflow.
        folder: its files; an earlier one's go on.
        kind: "compare" or "replay".
        params: of the parent run.
        tags: of the parent run.
        note: its description.
        display: shows progress.

    Raises:
        UserError: the cluster or the store does not answer.
        TrainingError: a trial ended without a result.
        TrainingInterruptedError: stopped by the user.
    """
    with quiet_stdout(placement.verbose):
        if placement.workers:
            display.phase("starting Ray")
            start_ray(placement)
        display.phase("opening the MLflow runs")
        recorder = Recorder(
            tracking,
            conditions,
            folder.local,
            experiment=slug(conditions.config),
            name=folder.name.rpartition("-")[0],  # without the digits that keep folders apart
            params=params,
            tags={"kind": kind, "crossreg.storage": folder.location, **tags},
            verbose=placement.verbose,
        )
        again = f"; go on with: crossreg compare --resume {recorder.parent.run_id}" if kind == "compare" else ""
        stopping = Stopping()
        with _closing(recorder, again), stopping.listening():
            recorder.parent.set_note(f"[Methods, mean over seeds]({recorder.parent.comparison_page})\n\n{note}")
            display.phase("starting the workers")
            yield Session(conditions, placement, folder.local, recorder, display, stopping)


@contextmanager
def _closing(recorder: Recorder, again: str) -> Iterator[None]:
    """End the MLflow runs with the right status, whatever happens."""
    try:
        yield
    except KeyboardInterrupt:
        recorder.close("KILLED")
        raise TrainingInterruptedError(f"stopped{again}") from None
    except SearchError as error:
        recorder.close("FAILED")
        raise TrainingError(f"{error}{again}") from error
    except BaseException:
        recorder.close("FAILED")
        raise
    recorder.close("FINISHED")


def run_methods(
    training: TrainConfig,
    methods: list[Method],
    seeds: int,
    placement: Placement,
    tracking: TrackingConfig,
    *,
    kind: str,
    of: str,
    display: ComparisonDisplay | None = None,
) -> list[Outcome]:
    """Run methods that train once, and record them.

    Args:
        training: what they train, but for what they change.
        methods: which.
        seeds: how many, from that of the training's split on.
        placement: where.
        tracking: which MLflow.
        kind: of the parent run.
        of: the run that they repeat.
        display: shows progress.

    Raises:
        UserError: something given is wrong; found before anything is written.
        TrainingError: a trial ended without a result.
        TrainingInterruptedError: stopped by the user.
    """
    display = display or ComparisonDisplay()
    storage_path = check_placed(placement)
    conditions = make_conditions(training)
    first = training.data.seed
    jobs = [Job(method, method.own_budget, seed) for seed in range(first, first + seeds) for method in methods]
    display.phase(f"loading {training.data.name}")
    display.plan({job: conditions.budget(job.budget, job.seed).amount for job in jobs}, "flops")
    folder = RunFolder(storage_path, new_name(f"{slug(training)}-{kind}"))
    tags, note = {"crossreg.of": of}, f"Replay of run {of}.\n\n    {command()}"
    params = training.model_dump(mode="json")
    with session(
        conditions, placement, tracking, folder, kind=kind, params=params, tags=tags, note=note, display=display
    ) as running:
        return running.run_jobs(jobs)
