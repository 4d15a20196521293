"""What a finished training leaves in MLflow beside its metrics: figures, the outcome, the model."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import torch

from crossreg.batches import Preprocess
from crossreg.prediction.calibration import Reliability
from crossreg.regularizers.registry import strip
from crossreg.training.checkpoint import load_checkpoint
from crossreg.core.errors import UserError
from crossreg.prediction.export import export_model
from services.data import Dataset
from services.tracking import Tracker
from services.training.assemble import build_model
from services.training.config import TrainConfig

__all__ = ["publish"]

_log = logging.getLogger(__name__)


def publish(
    config: TrainConfig, data: Dataset, outcome: dict[str, Any], checkpoint: Any, folder: Path, tracker: Tracker
) -> str | None:
    """Draw the figures of a finished training, log its model and return the model's URI.

    Args:
        config: what was trained.
        data: on what.
        outcome: what rank 0 sent at its end.
        checkpoint: Ray Train's last checkpoint.
        folder: where the exported model is kept.
        tracker: the run.

    Returns:
        The model's URI, or None where MLflow could not be reached: a finished training is not lost for that.
    """
    from services.tracking import figures

    history = tracker.history()
    if outcome["sigma"]:
        title = f"{Path(data.name).name}, {config.model}"
        tracker.figure("sigma_trajectories", figures.sigma_trajectories(history, title))
    tracker.figure("losses", figures.losses(history))
    if "reliability" in outcome:
        tracker.figure("reliability", figures.reliability(Reliability.from_dict(outcome["reliability"])))
    tracker.artifact_json(outcome, "outcome.json")
    _export(config, data, checkpoint, folder)
    try:
        return tracker.log_model(folder, data.test.x[:2].copy())
    except UserError as error:
        _log.warning("the model was not logged in MLflow and is kept in %s: %s", folder, error)
        return None


def _export(config: TrainConfig, data: Dataset, checkpoint: Any, folder: Path) -> None:
    with checkpoint.as_directory() as local:
        state = load_checkpoint(local)
    model = build_model(config, data)
    model.load_state_dict(state["model"])
    strip(model)
    target = None
    if data.target_mean is not None and data.target_std is not None:
        target = (data.target_mean.tolist(), data.target_std.tolist())
    export_model(
        model,
        Preprocess(torch.from_numpy(data.mean), torch.from_numpy(data.std)),
        folder,
        name=config.model,
        input_shape=data.input_shape,
        num_outputs=data.num_outputs,
        options=config.model_options,
        noise=config.noise.in_force() if config.noisy else None,
        task=data.task,
        classes=data.classes,
        target=target,
    )
