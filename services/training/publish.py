"""What a finished training leaves in MLflow beside its metrics: figures, the outcome, the model."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import torch

from crossreg.batches import Preprocess
from crossreg.calibration import Reliability
from crossreg.checkpoint import load_checkpoint
from crossreg.export import export_model
from services.data import Dataset
from services.tracking import Tracker
from services.training.assemble import build_model
from services.training.config import TrainConfig

__all__ = ["publish"]


def publish(config: TrainConfig, data: Dataset, outcome: dict[str, Any], checkpoint: Any, tracker: Tracker) -> str:
    """Draw the figures of a finished training, log its model and return the model's URI.

    Args:
        config: what was trained.
        data: on what.
        outcome: what rank 0 sent at its end.
        checkpoint: Ray Train's last checkpoint.
        tracker: the run.
    """
    from services.tracking import figures

    history = tracker.history()
    if outcome["sigma"]:
        tracker.figure(
            "sigma_trajectories", figures.sigma_trajectories(history, f"{Path(data.name).name}, {config.model}")
        )
    tracker.figure("losses", figures.losses(history))
    if "reliability" in outcome:
        tracker.figure("reliability", figures.reliability(_reliability(outcome["reliability"])))
    tracker.artifact_json(outcome, "outcome.json")
    with tempfile.TemporaryDirectory() as folder:
        with checkpoint.as_directory() as local:
            state = load_checkpoint(local)
        model = build_model(config, data)
        model.load_state_dict(state["model"])
        target = None
        if data.target_mean is not None and data.target_std is not None:
            target = (data.target_mean.tolist(), data.target_std.tolist())
        noise = config.noise.model_dump() if config.method == "crossreg" else None
        export_model(
            model,
            Preprocess(torch.from_numpy(data.mean), torch.from_numpy(data.std)),
            folder,
            name=config.model,
            input_shape=data.input_shape,
            num_outputs=data.num_outputs,
            options=config.model_options,
            noise=noise,
            task=data.task,
            classes=data.classes,
            target=target,
        )
        return tracker.log_model(Path(folder), data.test.x[:2].copy())


def _reliability(plain: dict[str, Any]) -> Reliability:
    columns = {name: torch.tensor(plain[name]) for name in ("confidence", "accuracy", "count", "edges")}
    return Reliability(**columns, ece=plain["ece"])
