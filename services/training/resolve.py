"""A configuration with nothing left open: what depends on the data and on the number of workers is written into it.

It is resolved once, before anything else is done with it; from there on there are plain numbers.
"""

from __future__ import annotations

import math
from typing import Any, Literal

from crossreg import models
from crossreg.core.errors import UserError
from crossreg.regularizers.registry import description, regularizer
from services.data import Dataset
from services.training.config import BY_DATA, RegularizerConfig, RhoConfig, TrainConfig
from services.training.optimizers import optimizer_kind

__all__ = ["ResolvedConfig", "ResolvedRho", "resolve", "with_model"]

SMALLEST_IMAGE = 8  # pixels, of what `cnn` takes
_LARGEST_DEFAULT_BATCH = 128
_LARGEST_AUGMENTATION_BATCH = 512
_DEFAULT_INTERVAL, _FEWEST_UPDATES = 30, 16


class ResolvedRho(RhoConfig):
    """How rho is learned, in numbers."""

    interval: int
    batch_size: int
    estimator: Literal["direct", "t1-t2", "unrolled", "implicit"]


class ResolvedConfig(TrainConfig):
    """What is trained, in numbers; `steps` says how long, and `epochs` nothing any more."""

    steps: int
    batch_size: int
    rho: ResolvedRho

    @property
    def evaluation_interval(self) -> int:
        """Theta steps between evaluations of the splits."""
        return max(1, math.ceil(self.steps / self.evaluations))

    @property
    def gradient_evaluations(self) -> int:
        """Forward and backward passes of an example in a theta step."""
        return optimizer_kind(self.optimizer.name).gradient_evaluations

    @property
    def finds_length(self) -> bool:
        """Whether `steps` is an upper bound; see `crossreg.training.course`."""
        return self.optimizer.schedule == "found"

    @property
    def without_stopping(self) -> ResolvedConfig:
        """The same training, to its last step."""
        return self.model_copy(update={"stopping": {}})

    @property
    def weight_decay(self) -> float:
        """Of the optimizer."""
        return self.regularizers["weight_decay"].value or 0.0


def resolve(config: TrainConfig, data: Dataset, sizes: range = range(1, 2)) -> ResolvedConfig:
    """Return the configuration with nothing left open.

    Args:
        config: what to train; one that is resolved already is returned as it is.
        data: on what.
        sizes: how many workers may train together.

    Raises:
        UserError: these numbers of workers cannot share a batch evenly.
    """
    if isinstance(config, ResolvedConfig):
        return config
    config = with_model(config, data)
    workers = math.lcm(*sizes)
    if len(sizes) > 1 and workers > len(data.train):
        raise UserError(
            f"{sizes[0]} to {sizes[-1]} workers cannot share a batch evenly: it would have {workers} examples; "
            "give a min_workers nearer to workers"
        )
    size = _batch_size(config, data, workers)
    steps = config.steps or config.epochs * (len(data.train) // max(size, 1))
    rho = config.rho.model_dump() | {
        "interval": config.rho.interval or min(_DEFAULT_INTERVAL, max(1, steps // _FEWEST_UPDATES)),
        "batch_size": config.rho.batch_size or _rho_batch_size(config, data, workers, size),
        "estimator": config.rho.estimator or _estimator(config),
    }
    regularizers = dict(config.regularizers)
    if "weight_decay" not in regularizers:
        own = optimizer_kind(config.optimizer.name).weight_decay
        default = description("weight_decay").default if own is None else own
        regularizers["weight_decay"] = RegularizerConfig(learn=False, value=default)
    if config.optimizer.schedule == "found":
        # it is fitted at the end
        regularizers.setdefault("temperature", RegularizerConfig(learn=False, value=1.0))
    return ResolvedConfig.model_validate(
        config.model_dump()
        | {
            "steps": max(steps, 1),
            "batch_size": size,
            "rho": rho,
            "regularizers": regularizers,
            "model_options": _model_options(config),
        }
    )


def with_model(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Return the configuration with a model: its own, or where it names none one that takes such data."""
    if config.model != BY_DATA:
        return config
    shape = data.input_shape
    images = len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE
    return config.model_copy(update={"model": "cnn" if images else "mlp"})


def _batch_size(config: TrainConfig, data: Dataset, workers: int) -> int:
    """Return examples in a step: as configured, else 128 or what the smaller split allows, shared evenly by workers."""
    if config.batch_size is not None:
        return config.batch_size
    smallest = min(len(data.train), len(data.reg) or len(data.train))
    size = min(_LARGEST_DEFAULT_BATCH, 2 ** int(math.log2(max(smallest, 1))))
    return max(workers, size // workers * workers)


def _rho_batch_size(config: TrainConfig, data: Dataset, workers: int, size: int) -> int:
    """Return the examples of a rho update over all workers.

    Augmentation is learned from the product of two gradients over randomly changed images, so there it is up to 512:
    with 128 their noise shrinks what is learned (measured in `docs/results/augmentation.md`).
    """
    if not any(regularizer(name).changes_images for name in config.learned):
        return size
    rows = min(_LARGEST_AUGMENTATION_BATCH, len(data.reg.x), len(data.train.x))
    return max(rows // workers, 1) * workers


def _estimator(config: TrainConfig) -> str:
    return "direct" if all(description(name).direct for name in config.learned) else "unrolled"


def _model_options(config: TrainConfig) -> dict[str, Any]:
    """Return the model's options; a model that builds dropout only when asked for is asked."""
    options = dict(config.model_options)
    if "dropout" in config.regularizers and "dropout" not in options and models.takes(config.model, "dropout"):
        options["dropout"] = config.regularizers["dropout"].value
    return options
