"""Runs a study: solves its cases on all cores and records the results in MLflow."""

from __future__ import annotations

import json
import os
import re
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError, nearest
from crossreg.core.plain import finite
from crossreg.services.tracking import Tracker, TrackingConfig
from crossreg.studies.augmentation.study import AugmentationMagnitudes
from crossreg.studies.ensemble.study import EnsembleStudy
from crossreg.studies.hypergradient.study import Hypergradient
from crossreg.studies.lasso.study import Lasso
from crossreg.studies.learned_optimizer.study import LearnedOptimizerStudy
from crossreg.studies.paper.accuracy.study import AccuracyStudy
from crossreg.studies.paper.calibration.study import CalibrationStudy
from crossreg.studies.paper.drift.study import Drift
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.paper.growing_data.study import GrowingData
from crossreg.studies.paper.noise_pattern.study import NoisePattern
from crossreg.studies.paper.other_domains.study import OtherDomains
from crossreg.studies.paper.reg_size.study import RegSize
from crossreg.studies.ridge.study import Ridge
from crossreg.studies.sensitivity.study import Learned, Sensitivity
from crossreg.studies.spline.study import Spline
from crossreg.studies.study import Measurement, Study
from crossreg.studies.weight_decay.study import WeightDecay
from crossreg.studies.zero_flag.study import ZeroFlag

__all__ = ["STUDIES", "Reproduced", "experiments", "metric_name", "reproduce", "study_named"]

STUDIES: dict[str, type[Study]] = {
    study.name: study
    for study in (
        Ridge,
        Lasso,
        Spline,
        Hypergradient,
        AugmentationMagnitudes,
        WeightDecay,
        ZeroFlag,
        Sensitivity,
        Learned,
        EnsembleStudy,
        LearnedOptimizerStudy,
        NoisePattern,
        AccuracyStudy,
        CalibrationStudy,
        GrowingData,
        Drift,
        RegSize,
        OtherDomains,
    )
}
"""Every study by its name."""


@dataclass(frozen=True)
class Reproduced:
    """What a study found.

    Attributes:
        study: which.
        rows: a measurement of every estimator in every case.
        table: the same summed up over seeds, as text.
        findings: what they say, in sentences.
        run_id: the MLflow run.
        ui_command: opens MLflow's UI on it.
        figure: path of the figure.
        kept: how many cases had been measured before and were read.
        cases: their folder; None for a study that measures all every time.
        seeds: how many random problems of each kind.
    """

    study: Study
    rows: list[Measurement]
    table: list[dict[str, str]]
    findings: list[str]
    run_id: str
    ui_command: str
    figure: Path
    kept: int = 0
    cases: Path | None = None
    seeds: int = 0

    def as_dict(self) -> dict[str, Any]:
        """Return it as `--json` prints it."""
        return {
            "study": self.study.name,
            "run_id": self.run_id,
            "figure": str(self.figure),
            "findings": self.findings,
            "numbers": self.study.numbers(self.rows),
            "rows": self.rows,
        }


def experiments() -> list[type[Experiment]]:
    """Return the experiments of the source paper, in their order."""
    return [study for study in STUDIES.values() if issubclass(study, Experiment)]


def study_named(name: str) -> type[Study]:
    """Return the class of a study.

    Raises:
        UserError: no such study.
    """
    if name not in STUDIES:
        raise UserError(f"unknown study {name!r}{nearest(name, STUDIES)}; allowed are {', '.join(STUDIES)}")
    return STUDIES[name]


def reproduce(
    study: Study,
    seeds: int,
    tracking: TrackingConfig,
    folder: Path,
    *,
    workers: int | None = None,
    advance: Callable[[int, int], None] | None = None,
) -> Reproduced:
    """Run a study and record it.

    Args:
        study: which.
        seeds: how many random problems of each kind.
        tracking: which MLflow.
        folder: the spool and the figure go into a folder of the run's own in it.
        workers: processes of one core each; None takes all cores.
        advance: is told how many cases of how many are done.

    Raises:
        UserError: fewer than one seed or worker, or a store that does not answer.
    """
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; it must be at least 1")
    workers = _cores() if workers is None else workers
    if workers < 1:
        raise UserError(f"workers is {workers}; it must be at least 1")
    study.prepare()  # a mistake in its data is said here, once
    cases = study.cases(seeds)
    own = _new_folder(folder, study.name)
    tracker = _start_run(study, seeds, len(cases), tracking, own / "tracking")
    try:
        kept = folder / study.name / "cases" if study.resumable else None
        before = 0 if kept is None else sum(_path_of(kept, case).exists() for case in cases)
        rows = _solve(study, cases, workers, advance or (lambda done, total: None), kept)
        table, findings, figure = study.table(rows), study.findings(rows), study.figure(rows)
        figure.savefig(own / f"{study.name}.png", dpi=150)
        tracker.record({metric_name(name): value for name, value in study.numbers(rows).items()}, 0)
        tracker.figure(study.name, figure)
        tracker.artifact("rows.json", json.dumps(finite(rows), indent=1).encode())
        tracker.set_note("\n\n".join(findings))
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")
    return Reproduced(
        study, rows, table, findings, tracker.run_id, tracker.ui_command, own / f"{study.name}.png", before, kept, seeds
    )


def metric_name(name: str) -> str:
    """Return a name that MLflow takes: without blanks and commas, as in the names of claims and arms."""
    return re.sub(r"[^\w./:-]", "", name.replace(" ", "_").replace("%", "percent"))


def _start_run(study: Study, seeds: int, num_cases: int, tracking: TrackingConfig, spool: Path) -> Tracker:
    params: dict[str, Any] = {"study": study.name, "seeds": seeds, "cases": num_cases}
    if study.data is not None:
        params |= {"data": study.data.name, "limit": study.data.limit}
    return Tracker.start(
        tracking,
        experiment="reproduce",
        run_name=study.name,
        params=params,
        tags={"kind": "reproduce", "study": study.name},
        spool_dir=spool,
        system_interval=None,
    )


def _solve(
    study: Study,
    cases: list[dict[str, Any]],
    workers: int,
    advance: Callable[[int, int], None],
    kept: Path | None = None,
) -> list[Measurement]:
    """Return the measurements of all cases, in the order of the cases.

    Args:
        study: which.
        cases: its cases.
        workers: processes of one core each.
        advance: is told how many cases of how many are done.
        kept: folder of finished cases, one JSON file each, which are not solved again; None solves all.
    """
    if kept is not None:
        kept.mkdir(parents=True, exist_ok=True)
    solve = partial(_solved, study, kept)
    # spawned: a forked process would inherit torch's threads in a state that hangs
    with ProcessPoolExecutor(min(workers, len(cases)), get_context("spawn"), _one_thread) as pool:
        futures = [pool.submit(solve, case) for case in cases]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                advance(done, len(cases))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [row for future in futures for row in future.result()]


def _solved(study: Study, kept: Path | None, case: dict[str, Any]) -> list[Measurement]:
    """Solve a case, or read what it gave before."""
    if kept is None:
        return study.solve(**case)
    path = _path_of(kept, case)
    if path.exists():
        found: list[Measurement] = json.loads(path.read_text())
        return found
    found = study.solve(**case)
    draft = path.with_suffix(".tmp")
    # for Python alone to read, as it was: a NaN is another thing than a None
    draft.write_text(json.dumps(found, indent=1))
    draft.replace(path)
    return found


def _path_of(kept: Path, case: dict[str, Any]) -> Path:
    """Return the file of a finished case."""
    name = "-".join(str(value).replace(" ", "_") for key, value in case.items() if key != "root")
    return kept / f"{name}.json"


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _new_folder(folder: Path, name: str) -> Path:
    """Make a folder of this run alone, numbered after those there, and return it."""
    number = 1 + max((int(path.name.rpartition("-")[2]) for path in folder.glob(f"{name}-[0-9]*")), default=0)
    own = folder / f"{name}-{number}"
    try:
        own.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    return own
