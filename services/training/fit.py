"""Ray Train's part in a training: workers started, listened to, stopped."""

from __future__ import annotations

import os
import signal
import threading
from typing import Any

from crossreg.core.errors import UserError
from services.data import Dataset
from services.tracking import Tracker
from services.training.assemble import num_steps
from services.training.config import Placement, TrainConfig
from services.training.errors import TrainingError, TrainingInterruptedError
from services.training.progress import Display
from services.training.consumer import MessageConsumer
from services.training.runtime import resources_per_worker
from services.training.stopping import on_sigterm
from services.training.storage import RunFolder
from services.training.telemetry import Telemetry

__all__ = ["fit"]


def fit(
    config: TrainConfig,
    placement: Placement,
    data: Dataset,
    folder: RunFolder,
    tracker: Tracker,
    state: dict[str, Any] | None,
    display: Display,
) -> tuple[dict[str, Any], list[str], Any]:
    """Run Ray Train; return the outcome, the diagnoses and the last checkpoint.

    Args:
        config: what to train; what depends on the number of workers is settled.
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
    import ray
    import ray.train
    from ray.train.torch import TorchTrainer
    from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

    from services.training.gloo import GlooConfig
    from services.training.mailbox import Mailbox
    from services.training.worker import train_worker

    # here, where the driver is, and not on a node whose loss a training outlives
    here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=False)
    mailbox = Mailbox.options(scheduling_strategy=here).remote()  # type: ignore[attr-defined]
    steps = num_steps(config, data, placement.workers)
    # a process that is stopped from outside is noticed by Ray Train's controller, one that hangs by itself
    os.environ["RAY_TRAIN_WORKER_HEALTH_CHECK_TIMEOUT_S"] = str(placement.hang_timeout)
    if placement.min_workers is not None:
        # how long workers that do not come are waited for before fewer start
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "15")
    trainer = TorchTrainer(
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
    consumer = MessageConsumer(mailbox, tracker, display, Telemetry(tracker.run_id, config.method))
    consumer.start()
    on_interrupt = signal.getsignal(signal.SIGINT)
    try:
        with on_sigterm(consumer.ask_to_stop):
            result = trainer.fit()
    except SystemExit:  # how Ray Train ends after Ctrl-C
        raise KeyboardInterrupt from None
    except Exception as error:
        reason = _reason(consumer.full or error)
        raise TrainingError(
            f"training failed: {reason}; see --verbose, and continue with --resume {tracker.run_id}"
        ) from error
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGINT, on_interrupt)  # Ray Train leaves its own behind
        consumer.stop()
    if consumer.error is not None:
        raise UserError(consumer.error)
    if consumer.stopped is not None:
        raise TrainingInterruptedError(
            f"stopped after step {consumer.stopped}, where a checkpoint was written; go on with --resume {tracker.run_id}"
        )
    if lost := consumer.full or consumer.failure:
        raise TrainingError(f"training ended, but not all of it was recorded: {lost}") from lost
    if consumer.outcome is None or result.checkpoint is None:
        raise TrainingError(f"training ended without a result; continue with --resume {tracker.run_id}")
    return consumer.outcome, consumer.diagnoses, result.checkpoint


def _reason(error: BaseException) -> str:
    """Return the innermost cause that a person can act on, in one line."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line for line in str(error).strip().splitlines() if line.strip()]
    return lines[-1].strip() if lines else type(error).__name__
