"""Running a study: its cases on all cores, and what came of it into MLflow."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor, as_completed
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError, nearest
from services.data import load_data
from services.tracking import Tracker, TrackingConfig
from studies.augmentation.study import AugmentationMagnitudes
from studies.hypergradient.study import Hypergradient
from studies.lasso.study import Lasso
from studies.ridge.study import Ridge
from studies.spline.study import Spline
from studies.study import Row, Study
from studies.weight_decay.study import WeightDecay

__all__ = ["STUDIES", "Reproduced", "reproduce", "study_named"]

STUDIES: dict[str, type[Study]] = {
    study.name: study for study in (Ridge, Lasso, Spline, Hypergradient, AugmentationMagnitudes, WeightDecay)
}
"""Every study by its name."""


@dataclass(frozen=True)
class Reproduced:
    """What a study found.

    Attributes:
        study: which.
        rows: a row for every case and estimator.
        table: summed up over seeds.
        findings: in words.
        run_id: the MLflow run.
        ui_command: opens the UI on it.
        figure: where the figure lies.
    """

    study: Study
    rows: list[Row]
    table: list[dict[str, str]]
    findings: list[str]
    run_id: str
    ui_command: str
    figure: Path

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


def study_named(name: str) -> type[Study]:
    """Return a study, still to be made.

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
    if study.data is not None:
        load_data(study.data)  # a mistake in it is said here, once
    cases = study.cases(seeds)
    own = _new_folder(folder, study.name)
    tracker = Tracker.start(
        tracking,
        experiment="reproduce",
        run_name=study.name,
        params={
            "study": study.name,
            "seeds": seeds,
            "cases": len(cases),
            **({"data": study.data.name, "limit": study.data.limit} if study.data else {}),
        },
        tags={"kind": "reproduce", "study": study.name},
        spool_dir=own / "tracking",
        system_interval=None,
    )
    try:
        rows = _solve(study, cases, workers, advance or (lambda done, total: None))
        table, findings, figure = study.table(rows), study.findings(rows), study.figure(rows)
        figure.savefig(own / f"{study.name}.png", dpi=150)
        tracker.record(study.numbers(rows), 0)
        tracker.figure(study.name, figure)
        tracker.artifact("rows.json", json.dumps(rows, indent=1).encode())
        tracker.set_note("\n\n".join(findings))
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")
    return Reproduced(study, rows, table, findings, tracker.run_id, tracker.ui_command, own / f"{study.name}.png")


def _solve(study: Study, cases: list[dict[str, Any]], workers: int, advance: Callable[[int, int], None]) -> list[Row]:
    """Return all rows in the order of the cases."""
    # spawned: a forked process would inherit torch's threads in a state that hangs
    with ProcessPoolExecutor(min(workers, len(cases)), get_context("spawn"), _one_thread) as pool:
        futures = [pool.submit(study.solve, **case) for case in cases]
        try:
            for done, future in enumerate(as_completed(futures), start=1):
                future.result()
                advance(done, len(cases))
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            raise
    return [row for future in futures for row in future.result()]


def _one_thread() -> None:
    import torch

    torch.set_num_threads(1)


def _cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _new_folder(folder: Path, name: str) -> Path:
    """Return a new folder of this run."""
    number = 1 + max((int(path.name.rpartition("-")[2]) for path in folder.glob(f"{name}-[0-9]*")), default=0)
    own = folder / f"{name}-{number}"
    try:
        own.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    return own
