"""A training carried out: Ray Train's workers started, listened to and stopped, or this process's own."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.data import Dataset
from crossreg.services.tracking import Tracker
from crossreg.services.training.config import Placement
from crossreg.services.training.consumer import MessageConsumer
from crossreg.services.training.errors import TrainingError, TrainingInterruptedError
from crossreg.services.training.line import LocalLine, RayLine
from crossreg.services.training.local import kept_here, left_here, train_here
from crossreg.services.training.progress import Display
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.result import TrainingResult
from crossreg.services.training.runtime import resources_per_worker
from crossreg.services.training.stopping import on_sigterm
from crossreg.services.training.storage import RunFolder
from crossreg.services.training.telemetry import Telemetry

__all__ = ["fit"]


def fit(
    config: ResolvedConfig,
    placement: Placement,
    data: Dataset,
    folder: RunFolder,
    tracker: Tracker,
    state: dict[str, Any] | None,
    display: Display,
) -> tuple[TrainingResult, list[str], Any]:
    """Train; return the result, the diagnoses and the last checkpoint.

    Args:
        config: what to train.
        placement: where.
        data: on what.
        folder: the run's files.
        tracker: its MLflow run.
        state: of a checkpoint to start from.
        display: shows progress.

    Raises:
        UserError: a mistake that only a worker could find.
        TrainingError: training failed, or not all of it was recorded.
        TrainingInterruptedError: SIGTERM; a checkpoint was written.
        KeyboardInterrupt: Ctrl-C.
    """
    every = placement.checkpoint_every or min(max(50, config.expected_steps // 10), 1000)
    here = placement.workers == 0
    line = LocalLine() if here else RayLine(_mailbox())
    consumer = MessageConsumer(line, tracker, display, Telemetry(tracker.run_id, config.method, exported=not here))
    consumer.start()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with on_sigterm(consumer.ask_to_stop):
            if isinstance(line, LocalLine):
                train_here(config, data, folder, line, state, gpu=placement.gpu, checkpoint_every=every)
                checkpoint: Any = next(iter(kept_here(folder)), None)
            else:
                state = left_here(config, data, folder, line) or state
                trainer = _ray_trainer(config, placement, data, folder, tracker, state, line.mailbox, every)
                checkpoint = trainer.fit().checkpoint
    except SystemExit:  # how Ray Train ends after Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        consumer.stop()
        if isinstance(error, UserError):  # found in this process
            raise
        if consumer.mistake is not None:
            raise UserError(consumer.mistake) from error
        reason = _reason(consumer.full or error)
        raise TrainingError(
            f"training failed: {reason}; see --verbose, and continue with --resume {tracker.run_id}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Ray Train leaves its own behind
        consumer.stop()
    return _ended(consumer, checkpoint, tracker.run_id), consumer.diagnoses, checkpoint


def _ended(consumer: MessageConsumer, checkpoint: Any, run_id: str) -> TrainingResult:
    """Return the result that the workers sent, or raise what they sent instead."""
    if consumer.mistake is not None:
        raise UserError(consumer.mistake)
    if consumer.stopped is not None:
        raise TrainingInterruptedError(
            f"stopped after step {consumer.stopped}, where a checkpoint was written; go on with --resume {run_id}"
        )
    if lost := consumer.full or consumer.failure:
        raise TrainingError(f"training ended, but not all of it was recorded: {lost}") from lost
    if consumer.result is None or checkpoint is None:
        raise TrainingError(f"training ended without a result; continue with --resume {run_id}")
    return consumer.result


def _mailbox() -> Any:
    """Start the mailbox here, where the driver is, and not on a node whose loss a training outlives."""
    import ray
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from crossreg.services.training.mailbox import Mailbox

    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    return Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]


def _ray_trainer(
    config: ResolvedConfig,
    placement: Placement,
    data: Dataset,
    folder: RunFolder,
    tracker: Tracker,
    state: dict[str, Any] | None,
    mailbox: Any,
    checkpoint_every: int,
) -> Any:
    """Return Ray Train's trainer; see `fit`."""
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer

    from crossreg.services.training.gloo import GlooConfig
    from crossreg.services.training.worker import train_worker

    # a process that is stopped from outside is noticed by Ray Train's controller, one that hangs by itself
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(placement.hang_timeout)
    if placement.min_workers is not None:
        # how long workers that do not come are waited for before fewer start
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    return TorchTrainer(
        train_worker,
        torch_config=GlooConfig(timeout_s=placement.hang_timeout),
        train_loop_config={
            "config": config.model_dump(mode="json"),
            "data": ray.put(data),
            "mailbox": mailbox,
            "run_id": tracker.run_id,
            "gpu": placement.gpu,
            "hang_timeout": placement.hang_timeout,
            # on one's own machine no node is drained
            "preemptible": "RAY_ADDRESS" in os.environ,
            "checkpoint_every": checkpoint_every,
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


def _reason(error: BaseException) -> str:
    """Return the innermost cause that a person can act on, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
