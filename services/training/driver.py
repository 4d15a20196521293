"""One training from start to end, seen from the process the user started.

The driver checks everything that can be checked, opens the MLflow run, starts Ray Train, relays what the workers
send to the progress bar and to MLflow, and closes the run with figures and the model.
"""

from __future__ import annotations

import errno
import logging
import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pydantic import Field

from crossreg.core.errors import UserError
from crossreg.core.random import kept_rng_state
from crossreg.services.data import Dataset, describe, in_lines, load_data
from crossreg.services.logs import bind
from crossreg.services.tracking import DiskError, Tracker, TrackingConfig, default_uri
from crossreg.services.tracking.params import in_tags
from crossreg.services.tracking.store import connect
from crossreg.services.training.assemble import takes_integers
from crossreg.services.training.check import check, starting_state
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.describe import (
    in_short,
    note,
    params,
    regularized_by,
    slug,
    starting_values,
    taken_as_is,
)
from crossreg.services.training.errors import TrainingError, TrainingInterruptedError
from crossreg.services.training.explain import EXPLANATION, divergence, explain, unit_of
from crossreg.services.training.fit import fit
from crossreg.services.training.naming import group
from crossreg.services.training.optimizers import optimizer_kind
from crossreg.services.training.progress import Display, Silent
from crossreg.services.training.publish import LEARNED, publish
from crossreg.services.training.resolve import ResolvedConfig, resolve
from crossreg.services.training.result import TrainingResult
from crossreg.services.training.runtime import check_placement, start_ray
from crossreg.services.training.simple import simple_scores
from crossreg.services.training.stopping import on_sigterm
from crossreg.services.training.storage import RunFolder, check_storage, is_remote, new_name
from crossreg.training.checkpoint import CHECKPOINT_FILE

__all__ = ["FinishedTraining", "Resume", "closing", "quiet_stdout", "train"]

_log = logging.getLogger(__name__)
_NO_ROOM = (errno.ENOSPC, errno.EDQUOT, errno.EROFS)


class FinishedTraining(TrainingResult):
    """What a finished training hands back.

    Attributes:
        run_id: MLflow run.
        checkpoint: path or URI of the last checkpoint file.
        model_uri: the logged model in MLflow; None where the store was away, the model is then in the run's folder.
        ui_command: opens the MLflow UI on the run's store.
        url: page of the run, where MLflow is a server.
        diagnoses: failure signatures seen, in words.
        simple: scores of simple models on the same splits, by name.
        explanation: all of it in sentences.
        target_std: of a regression, the deviation of each target in the training split: the unit of the RMSE.
        target: its name, where it has one.
        starts: where what was learned started, by name; where it ended is in `regularizers`.
    """

    run_id: str
    checkpoint: str
    model_uri: str | None
    ui_command: str
    url: str | None
    diagnoses: list[str]
    simple: dict[str, dict[str, float]] = Field(default_factory=dict)
    explanation: list[str] = Field(default_factory=list)
    target_std: list[float] = Field(default_factory=list)
    target: str = ""
    starts: dict[str, float] = Field(default_factory=dict)


@dataclass(frozen=True)
class Resume:
    """An earlier run to go on with.

    Attributes:
        run_id: its MLflow run.
        folder: its files.
        start_from: the checkpoint that it was started from, if any.
        last_step: the last step it recorded.
    """

    run_id: str
    folder: RunFolder
    start_from: str | None = None
    last_step: int = 0


def train(
    config: TrainConfig,
    placement: Placement,
    tracking: TrackingConfig,
    *,
    data: Dataset | None = None,
    resume: Resume | None = None,
    start_from: str | None = None,
    display: Display | None = None,
) -> FinishedTraining:
    """Train, track and log one model.

    Args:
        config: what to train.
        placement: where.
        tracking: which MLflow.
        data: what `config.data` names, where it is loaded already.
        resume: an earlier run to continue; its configuration must be `config` but for the number of steps.
        start_from: a checkpoint of the same model and data to start a new run from.
        display: shows progress.

    Raises:
        UserError: something given is wrong; found before anything is written.
        TrainingError: training started and did not end well.
    """
    display = display or Silent()
    check_placement(placement)
    storage_path = check_storage(placement.storage_path)
    if data is None:
        display.phase(f"loading {config.data.name}")
        data = load_data(config.data, may_stream=True)
    if placement.workers == 0 and data.stream is not None:
        raise UserError(
            f"{data.name} is read from disk by Ray while training, and --workers 0 has none; use --workers 1"
        )
    if placement.workers == 0 and is_remote(storage_path):
        raise UserError(f"--workers 0 keeps checkpoints in a local folder, and storage path is {storage_path!r}")
    resolved = resolve(config, data, placement.sizes)
    with kept_rng_state():
        notes = check(resolved, data, placement.sizes)
    steps = resolved.steps
    if resume is not None and not resume.folder.exists():
        raise UserError(
            f"the files of run {resume.run_id} are not at {resume.folder.location}, so there is nothing to go on from"
        )
    if resume is not None and resume.last_step > steps:
        raise UserError(
            f"run {resume.run_id} has reached step {resume.last_step}, and {steps} steps are asked for; give more "
            "--epochs or --steps to go on with it"
        )
    start_from = resume.start_from if resume else start_from
    state = None if start_from is None else starting_state(resolved, data, start_from)
    uri = tracking.uri or default_uri()
    if uri.startswith("http"):  # a server may be away; a file is opened, and made, when all else is well
        connect(uri)
    with quiet_stdout(placement.verbose), kept_rng_state():
        return _train(resolved, placement, tracking, data, storage_path, resume, start_from, state, notes, display)


def _train(
    config: ResolvedConfig,
    placement: Placement,
    tracking: TrackingConfig,
    data: Dataset,
    storage_path: str,
    resume: Resume | None,
    start_from: str | None,
    state: dict[str, Any] | None,
    notes: list[str],
    display: Display,
) -> FinishedTraining:
    """Start Ray and the MLflow run, train, and close both; everything given has been checked."""
    if placement.workers:
        display.phase("starting Ray")
        start_ray(placement, reading=data.stream is not None)
    alike = group(config, data)
    name = f"{slug(config)}-{config.method}-s{config.seed}"
    folder = resume.folder if resume else RunFolder(storage_path, new_name(name))
    given = config
    if resume is None:
        config = _with_files_in(folder, config)
    display.phase("opening the MLflow run")
    tracker = Tracker.start(
        tracking,
        experiment=slug(config),
        run_name=f"{alike}-s{config.seed}",
        params=params(config, placement, data),
        tags={
            "group": alike,
            "method": config.method,
            "seed": str(config.seed),
            "kind": "train",
            "world_size": str(placement.sizes[-1]),
            "data.fingerprint": data.fingerprint,
            "crossreg.storage": folder.location,
            **({"crossreg.start_from": start_from} if start_from else {}),
            **in_tags("crossreg.config", config.model_dump_json(exclude_none=True)),
        },
        spool_dir=folder.spool,
        resume_run_id=resume.run_id if resume else None,
        verbose=placement.verbose,
    )
    bind(tracker.run_id)
    with closing(tracker, f"go on with --resume {tracker.run_id}"):
        _log.info("run started", extra=in_short(config, placement, data))
        if resume is None:
            for name, path in optimizer_kind(given.optimizer.name).artifacts().items():
                content = path.read_bytes()
                (folder.local / name).write_bytes(content)
                tracker.artifact(name, content)
        display.note(f"run: {tracker.url or tracker.run_id}")
        described = describe(data)
        for line in [
            *in_lines(described),
            *taken_as_is(config, data),
            f"model: {config.model}; {regularized_by(config)}",
            *notes,
            *optimizer_kind(config.optimizer.name).notes(config.steps),
        ]:
            display.note(line)
        tracker.set_note(note(config, data))
        tracker.save_views()
        if resume is None:
            tracker.artifact_json(described, "data.json")
            tracker.dataset(Path(data.name).name, data.fingerprint, data.name, described)
        display.phase("starting the workers" if placement.workers else "starting")
        result, diagnoses, checkpoint = fit(config, placement, data, folder, tracker, state, display)
        display.phase("training simple models to compare with")
        simple = _simple_scores(config, data)
        for name, scores in simple.items():
            kept = {f"simple/{name.replace(' ', '_')}/{score}": value for score, value in scores.items()}
            tracker.record(kept, result.steps)
        starts = starting_values(config, data, result.learned, state)
        said = explain(config, data, result, simple, diagnoses, starts)
        tracker.artifact(EXPLANATION, "\n\n".join(said).encode())
        figure = [tracker.shown(LEARNED)] if result.learned else []
        tracker.set_note("\n\n".join([*said, *figure, note(config, data)]))
        tracker.save_views(result.learned)
        display.phase("writing figures and the model")
        model_uri = publish(config, data, result, checkpoint, folder.local / "model", tracker)
        # when all that there is has been kept
        if why := divergence(result, tracker.history().get("train/loss", ((), ()))):
            raise TrainingError(
                f"training diverged: {why}; give a smaller --lr (it is {config.optimizer.lr:g}). What was recorded is "
                f"kept, look at run {tracker.run_id} with: {tracker.ui_command}"
            )
    unit = unit_of(data)
    return FinishedTraining(
        **dict(result),
        run_id=tracker.run_id,
        checkpoint="/".join((folder.location, Path(checkpoint.path).name, CHECKPOINT_FILE)),
        model_uri=model_uri,
        ui_command=tracker.ui_command,
        url=tracker.url,
        diagnoses=diagnoses,
        simple=simple,
        explanation=said,
        target_std=[] if unit is None else list(unit.std),
        target="" if unit is None else unit.name,
        starts=starts,
    )


def _with_files_in(folder: RunFolder, config: ResolvedConfig) -> ResolvedConfig:
    """Return the configuration with the optimizer's file named where the run keeps it: what it goes on with later.

    Workers elsewhere read a shared folder, and no remote storage: with that the file stays where it is.
    """
    kind = optimizer_kind(config.optimizer.name)
    files = list(kind.artifacts())
    if not files or is_remote(folder.storage_path):
        return config
    optimizer = config.optimizer.model_copy(update={"name": f"{kind.name}:{folder.local / files[0]}"})
    return config.model_copy(update={"optimizer": optimizer})


def _simple_scores(config: ResolvedConfig, data: Dataset) -> dict[str, dict[str, float]]:
    """Return the scores of simple models; a finished training is not lost for one that fails."""
    if takes_integers(data, config.model):
        return {}
    try:
        return simple_scores(data, config.seed)
    # scikit-learn raises its own for data that it cannot take
    except Exception as error:
        _log.warning("no simple model to compare with: %s", error)
        return {}


@contextmanager
def quiet_stdout(verbose: bool) -> Iterator[None]:
    """Keep what Ray prints off stdout, which belongs to the result; it goes to stderr or nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stderr if verbose else nowhere):  # noqa: PTH123
        yield


@contextmanager
def closing(tracker: Tracker, go_on: str) -> Iterator[None]:
    """End the MLflow run with the right status, whatever happens; SIGTERM is taken like Ctrl-C.

    Args:
        tracker: of the run.
        go_on: how one goes on where it was stopped, as an order: "go on with ...".
    """
    try:
        with on_sigterm(_interrupt):
            yield
    except TrainingInterruptedError:
        tracker.finish("KILLED")
        raise
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise TrainingInterruptedError(f"stopped; {go_on}") from None
    except BaseException as error:
        tracker.finish("FAILED")
        if isinstance(error, DiskError) or getattr(error, "errno", None) in _NO_ROOM:
            raise TrainingError(f"stopped: {error}; make room, and {go_on}") from error
        raise
    tracker.finish("FINISHED")


def _interrupt() -> None:
    raise KeyboardInterrupt
