"""One training from start to end, seen from the process the user started.

The driver checks everything that can be checked, opens the MLflow run, starts Ray Train, relays what the workers
send to the progress bar and to MLflow, and closes the run with figures and the model.
"""

from __future__ import annotations

import hashlib
import logging
import os
import shlex
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossreg.checkpoint import CHECKPOINT_FILE
from crossreg.errors import UserError
from services.data import Dataset, load_data
from services.logs import bind
from services.tracking import Tracker, TrackingConfig, redact
from services.training.assemble import about, batch_size, num_steps, rho_interval, settled
from services.training.config import Placement, TrainConfig
from services.training.progress import Display, Silent
from services.training.publish import publish
from services.training.relay import Relay
from services.training.runtime import check_placement, resources_per_worker, start_ray
from services.training.stopping import on_sigterm
from services.training.storage import RunFolder, check_storage, new_name, read_checkpoint
from services.training.telemetry import Telemetry

__all__ = [
    "Report",
    "Resume",
    "TrainingError",
    "TrainingInterruptedError",
    "command",
    "quiet_stdout",
    "slug",
    "train",
]

_log = logging.getLogger(__name__)


class TrainingError(RuntimeError):
    """The training ended without a model; the message says why, and how to go on."""


class TrainingInterruptedError(RuntimeError):
    """The user stopped the training; the message says how to go on."""


@dataclass
class Report:
    """What a finished training hands back.

    Attributes:
        run_id: MLflow run.
        test: scores of noise-averaged predictions on the test split.
        test_scaled: the same after temperature scaling on the regularization split; empty without one.
        sigma: learned noise scale by layer, the mean where there is one a unit.
        compute: examples, FLOPs and worker-seconds.
        checkpoint: path or URI of the last checkpoint file.
        model_uri: the logged model in MLflow; None where the store was away, the model is then in the run's folder.
        ui_command: opens the MLflow UI on the run's store.
        url: page of the run, where MLflow is a server.
        diagnoses: failure signatures seen, in words.
    """

    run_id: str
    test: dict[str, float]
    test_scaled: dict[str, float]
    sigma: dict[str, float]
    compute: dict[str, float]
    checkpoint: str
    model_uri: str | None
    ui_command: str
    url: str | None
    diagnoses: list[str] = field(default_factory=list)


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
    resume: Resume | None = None,
    start_from: str | None = None,
    display: Display | None = None,
) -> Report:
    """Train, track and log one model.

    Args:
        config: what to train.
        placement: where.
        tracking: which MLflow.
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
    display.phase(f"loading {config.data.name}")
    data = load_data(config.data)
    config = settled(config, data, placement.sizes)
    steps = num_steps(config, data, placement.workers)
    if resume is not None and not resume.folder.exists():
        raise UserError(
            f"the files of run {resume.run_id} are not at {resume.folder.location}, so there is nothing to go on from"
        )
    if resume is not None and resume.last_step > steps:
        raise UserError(
            f"run {resume.run_id} has reached step {resume.last_step}, and {steps} steps are asked for; give more "
            "--epochs or --steps to go on with it"
        )
    state = None
    start_from = resume.start_from if resume else start_from
    if start_from is not None:
        state = read_checkpoint(start_from, **about(config, data))
        if state["step"] >= steps:
            raise UserError(
                f"checkpoint {start_from} is of step {state['step']}, and this run has {steps}; give more --epochs or "
                "--steps to go on from it"
            )
    with quiet_stdout(placement.verbose):
        return _train(config, placement, tracking, data, storage_path, resume, start_from, state, display)


def _train(
    config: TrainConfig,
    placement: Placement,
    tracking: TrackingConfig,
    data: Dataset,
    storage_path: str,
    resume: Resume | None,
    start_from: str | None,
    state: dict[str, Any] | None,
    display: Display,
) -> Report:
    """Start Ray and the MLflow run, train, and close both; everything given has been checked."""
    display.phase("starting Ray")
    start_ray(placement)
    run_name = f"{config.method}-s{config.seed}"
    folder = resume.folder if resume else RunFolder(storage_path, new_name(f"{slug(config)}-{run_name}"))
    display.phase("opening the MLflow run")
    tracker = Tracker.start(
        tracking,
        experiment=slug(config),
        run_name=run_name,
        params=_params(config, placement, data),
        tags={
            "method": config.method,
            "seed": str(config.seed),
            "kind": "train",
            "world_size": str(placement.workers),
            "data.fingerprint": data.fingerprint,
            "crossreg.storage": folder.location,
            **({"crossreg.start_from": start_from} if start_from else {}),
            "crossreg.config": _resolved(config, data, placement).model_dump_json(),
        },
        spool_dir=folder.spool,
        resume_run_id=resume.run_id if resume else None,
        verbose=placement.verbose,
    )
    bind(tracker.run_id)
    with _closing(tracker):
        _log.info("run started", extra=_in_short(config, placement, data))
        display.note(f"run: {tracker.url or tracker.run_id}")
        tracker.set_note(_note(config, data))
        if resume is None:
            tracker.dataset(Path(data.name).name, data.fingerprint, data.name)
        display.phase("starting the workers")
        outcome, diagnoses, checkpoint = _fit(config, placement, data, folder, tracker, state, display)
        display.phase("writing figures and the model")
        model_uri = publish(config, data, outcome, checkpoint, folder.local / "model", tracker)
    return Report(
        run_id=tracker.run_id,
        test=outcome["test"],
        test_scaled=outcome.get("test_scaled", {}),
        sigma=outcome["sigma"],
        compute=outcome["compute"],
        checkpoint="/".join((folder.location, Path(checkpoint.path).name, CHECKPOINT_FILE)),
        model_uri=model_uri,
        ui_command=tracker.ui_command,
        url=tracker.url,
        diagnoses=diagnoses,
    )


@contextmanager
def quiet_stdout(verbose: bool) -> Iterator[None]:
    """Keep what Ray prints off stdout, which belongs to the result; it goes to stderr or nowhere."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(sys.stderr if verbose else nowhere):  # noqa: PTH123
        yield


@contextmanager
def _closing(tracker: Tracker) -> Iterator[None]:
    """End the MLflow run with the right status, whatever happens; SIGTERM is taken like Ctrl-C."""
    try:
        with on_sigterm(_interrupt):
            yield
    except TrainingInterruptedError:
        tracker.finish("KILLED")
        raise
    except KeyboardInterrupt:
        tracker.finish("KILLED")
        raise TrainingInterruptedError(f"stopped; go on with --resume {tracker.run_id}") from None
    except BaseException:
        tracker.finish("FAILED")
        raise
    tracker.finish("FINISHED")


def _interrupt() -> None:
    raise KeyboardInterrupt


def _fit(
    config: TrainConfig,
    placement: Placement,
    data: Dataset,
    folder: RunFolder,
    tracker: Tracker,
    state: dict[str, Any] | None,
    display: Display,
) -> tuple[dict[str, Any], list[str], Any]:
    """Run Ray Train; return the outcome, the diagnoses and the last checkpoint."""
    import ray
    import ray.train
    from ray.train.torch import TorchConfig, TorchTrainer

    from services.training.mailbox import Mailbox
    from services.training.worker import train_worker

    mailbox = Mailbox.remote()  # type: ignore[attr-defined]
    steps = num_steps(config, data, placement.workers)
    # a process that is stopped from outside is noticed by Ray Train's controller, one that hangs by itself
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(placement.hang_timeout)
    trainer = TorchTrainer(
        train_worker,
        torch_config=TorchConfig(timeout_s=placement.hang_timeout),
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "data": ray.put(data),
            "mailbox": mailbox,
            "run_id": tracker.run_id,
            "gpu": placement.gpu,
            "hang_timeout": placement.hang_timeout,
            # on one's own machine no node is drained
            "preemptible": "RAY_ADDRESS" in os.environ,
            "checkpoint_every": placement.checkpoint_every or min(max(50, steps // 10), 1000),
            "start_from": None if state is None else ray.put(state),
        },
        scaling_config=ray.train.ScalingConfig(
            num_workers=(placement.sizes[0], placement.workers) if placement.min_workers else placement.workers,
            use_gpu=placement.gpu,
            resources_per_worker=resources_per_worker(placement),
        ),
        run_config=ray.train.RunConfig(
            **folder.storage(),
            failure_config=ray.train.FailureConfig(max_failures=placement.max_failures),
            checkpoint_config=ray.train.CheckpointConfig(num_to_keep=2),
        ),
    )
    relay = Relay(mailbox, tracker, display, Telemetry(tracker.run_id, config.method))
    relay.start()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with on_sigterm(relay.ask_to_stop):
            result = trainer.fit()
    except SystemExit:  # how Ray Train ends after Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        raise TrainingError(
            f"training failed: {_reason(error)}; see --verbose, and continue with --resume {tracker.run_id}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Ray Train leaves its own behind
        relay.stop()
    if relay.error is not None:
        raise UserError(relay.error)
    if relay.stopped is not None:
        raise TrainingInterruptedError(
            f"stopped after step {relay.stopped}, where a checkpoint was written; go on with --resume {tracker.run_id}"
        )
    if relay.failure is not None:
        raise TrainingError(f"training ended, but not all of it was recorded: {relay.failure}") from relay.failure
    if relay.outcome is None or result.checkpoint is None:
        raise TrainingError(f"training ended without a result; continue with --resume {tracker.run_id}")
    return relay.outcome, relay.diagnoses, result.checkpoint


def _resolved(config: TrainConfig, data: Dataset, placement: Placement) -> TrainConfig:
    """Return the configuration with the interval that this run takes, which a longer resumed run must keep."""
    interval = rho_interval(config, num_steps(config, data, placement.workers))
    return config.model_copy(update={"rho": config.rho.model_copy(update={"interval": interval})})


def _params(config: TrainConfig, placement: Placement, data: Dataset) -> dict[str, Any]:
    splits = {name: len(split) for name, split in (("train", data.train), ("reg", data.reg), ("test", data.test))}
    return {
        **_resolved(config, data, placement).model_dump(mode="json"),
        "batch_size": batch_size(config, data, placement.workers),
        "workers": placement.workers,
        "num_examples": splits,
    }


def _in_short(config: TrainConfig, placement: Placement, data: Dataset) -> dict[str, Any]:
    """Return what the log says of the run; equal configurations have equal fingerprints."""
    resolved = _resolved(config, data, placement).model_dump_json()
    return {
        "experiment": slug(config),
        "method": config.method,
        "seed": config.seed,
        "config_fingerprint": hashlib.sha256(resolved.encode()).hexdigest()[:16],
        "data_fingerprint": data.fingerprint,
        "workers": placement.workers,
    }


def _note(config: TrainConfig, data: Dataset) -> str:
    return (
        f"**{config.method}** training of `{config.model}` on `{data.name}` "
        f"({len(data.train):,} train, {len(data.reg):,} reg, {len(data.test):,} test examples), seed {config.seed}.\n\n"
        f"    {command()}"
    )


def command() -> str:
    """Return the command that the user typed, without the passwords of its URIs."""
    by_name = Path(sys.argv[0]).name == "crossreg"
    typed = ["crossreg", *sys.argv[1:]] if by_name else ["python", *sys.orig_argv[1:]]
    return redact(shlex.join(typed))


def slug(config: TrainConfig) -> str:
    """Return the experiment's name, `<data>-<model>`, free of path separators."""
    model = config.model.replace(":", "_")
    return f"{Path(config.data.name).stem}-{model}".replace("/", "_")


def _reason(error: BaseException) -> str:
    """Return the innermost cause that a person can act on, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
