"""What a finished training leaves in MLflow beside its metrics: figures, the outcome, the model."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from torch import nn

from crossreg.core.errors import UserError
from crossreg.models import Ensemble, networks, options_for
from crossreg.prediction.calibration import Reliability
from crossreg.prediction.export import export_model
from crossreg.regularizers.registry import REGISTRY, attach, remove
from crossreg.services.data import Dataset
from crossreg.services.tracking import Tracker
from crossreg.services.training.assemble import build_model, preprocess_of, takes_integers
from crossreg.services.training.config import RegularizerConfig
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.result import TrainingResult
from crossreg.training.checkpoint import load_checkpoint

__all__ = ["ALONE", "LEARNED", "export_alone", "export_training", "publish"]

ALONE = "alone"
"""Folder beside an exported ensemble, and of the run's artifacts, that holds its best network as a model by itself."""

LEARNED = "hyperparameter_trajectories"
"""Figure of all that was learned."""

_log = logging.getLogger(__name__)
_ROWS = 20_000


def publish(
    config: ResolvedConfig, data: Dataset, result: TrainingResult, checkpoint: Any, folder: Path, tracker: Tracker
) -> str | None:
    """Draw the figures of a finished training, log its model and return the model's URI.

    Args:
        config: what was trained.
        data: on what.
        result: what rank 0 sent at its end.
        checkpoint: Ray Train's last checkpoint.
        folder: where the exported model is kept.
        tracker: the run.

    Returns:
        The model's URI, or None where MLflow could not be reached: a finished training is not lost for that.
    """
    from crossreg.services.tracking import figures

    history = tracker.history()
    if result.learned:
        title = f"{Path(data.name).name}, {config.model}"
        tracker.figure(LEARNED, figures.hyperparameter_trajectories(history, title))
    tracker.figure("losses", figures.losses(history))
    if result.reliability:
        tracker.figure("reliability", figures.reliability(Reliability.from_dict(result.reliability)))
    tracker.artifact("result.json", result.model_dump_json(indent=1).encode())
    with checkpoint.as_directory() as local:
        state = load_checkpoint(local)
    model = build_model(config, data)
    model.load_state_dict(state["model"])
    export_training(config, data, model, folder)
    if result.alone:
        export_alone(config, data, model, result.alone, folder / ALONE)
        for file in sorted((folder / ALONE).iterdir()):
            tracker.artifact(f"{ALONE}/{file.name}", file.read_bytes())
    try:
        return tracker.log_model(folder, data.example)
    except UserError as error:
        _log.warning("the model was not logged in MLflow and is kept in %s: %s", folder, error)
        return None


def export_training(config: ResolvedConfig, data: Dataset, model: nn.Module, folder: Path) -> None:
    """Write a trained model for prediction elsewhere, with what turns raw inputs into its own.

    Args:
        config: what was trained.
        data: on what.
        model: trained; what acts on training alone is taken off it.
        folder: where; made if missing.
    """
    remove(model, keep_exported=True)
    _export(config, data, model, folder)


def export_alone(
    config: ResolvedConfig, data: Dataset, model: nn.Module, alone: Mapping[str, float], folder: Path
) -> None:
    """Write one network of a trained ensemble as a model by itself, with a temperature of its own.

    Args:
        config: what was trained.
        data: on what.
        model: the ensemble, as `export_training` left it.
        alone: the `member`, and its `temperature`.
        folder: where; made if missing.
    """
    assert isinstance(model, Ensemble)
    place = int(alone["member"])
    network, name = model.alone(place), networks(config.model, config.ensemble)[place]
    attach(network, {"temperature": alone["temperature"]})
    fitted = RegularizerConfig(learn=False, value=alone["temperature"])
    own = config.model_copy(
        update={
            "model": name,
            "model_options": options_for(name, config.model, config.model_options),
            "ensemble": 1,
            "ensemble_style": "independent",
            "regularizers": {**config.regularizers, "temperature": fitted},
        }
    )
    _export(own, data, network, folder)


def _span(data: Dataset, model: str) -> tuple[list[float], list[float]] | None:
    """Return the smallest and the largest value of each channel or feature; of many rows some stand for all."""
    if takes_integers(data, model):
        return None
    rows = np.linspace(0, len(data.train) - 1, min(len(data.train), _ROWS)).round().astype(int)
    x = data.train.x[rows]
    axes = (0, *range(2, x.ndim))
    return np.nanmin(x, axes).astype(float).tolist(), np.nanmax(x, axes).astype(float).tolist()


def _export(config: ResolvedConfig, data: Dataset, model: nn.Module, folder: Path) -> None:
    exported = {name for name, entry in REGISTRY.items() if entry.exported}
    target = None
    if data.target_mean is not None and data.target_std is not None:
        target = (data.target_mean.tolist(), data.target_std.tolist())
    export_model(
        model,
        preprocess_of(data, config.model),
        folder,
        name=config.model,
        input_shape=data.input_shape,
        num_outputs=data.num_outputs,
        options=config.model_options,
        members=config.ensemble,
        style=config.ensemble_style,
        regularizers={name: one.options for name, one in config.regularizers.items() if name in exported},
        task=data.task,
        classes=data.classes,
        target=target,
        inputs=data.inputs,
        span=_span(data, config.model),
    )
