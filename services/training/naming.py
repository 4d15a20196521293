"""By what a training is told from others of the same data and model."""

from __future__ import annotations

from crossreg.services.data import Dataset
from crossreg.services.training.config import RegularizerConfig, TrainConfig
from crossreg.services.training.describe import slug
from crossreg.services.training.optimizer_config import OptimizerConfig
from crossreg.services.training.resolve import ResolvedConfig, resolve

__all__ = ["group"]


def group(config: ResolvedConfig, data: Dataset) -> str:
    """Return what runs are called that differ in the seed alone: `digits-cnn`, `digits-mlp-cosine-noise+l2`.

    After data and model comes what a training that says nothing else has otherwise, schedule, optimizer and fixed
    regularizers, and what is learned.
    """
    optimizer, schedule = config.optimizer.name, config.optimizer.schedule
    usual = OptimizerConfig()
    alike = TrainConfig(
        model=config.model, data=config.data, optimizer=OptimizerConfig(name=optimizer, schedule=schedule)
    )
    silent = resolve(alike, data).regularizers
    regularizers = [
        _said(name, one) for name, one in config.regularizers.items() if one.learn or one != silent.get(name)
    ]
    parts = [
        schedule if schedule != usual.schedule else "",
        optimizer.partition(":")[0] if optimizer != usual.name else "",
        "+".join(filter(None, regularizers)),
    ]
    return "-".join([slug(config), *filter(None, parts)])


def _said(name: str, one: RegularizerConfig) -> str:
    if one.learn:
        return "" if name == "temperature" else name  # which is learned wherever anything is
    return f"{name}={'fixed' if one.value is None else format(one.value, 'g')}"
