"""A configuration with nothing left open: what depends on the data and on the number of workers is written into it.

It is resolved once, before anything else is done with it; from there on there are plain numbers.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Literal

from crossreg import models
from crossreg.core.errors import UserError
from crossreg.inputs import Sequence, Table
from crossreg.regularizers.between import BETWEEN
from crossreg.regularizers.registry import description, regularizer
from crossreg.services.data import Dataset, can_stream
from crossreg.services.training.config import BY_DATA, RegularizerConfig, RhoConfig, TrainConfig
from crossreg.services.training.linear import NEARLY_ALL, explained_linearly
from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers import optimizer_kind

__all__ = ["ResolvedConfig", "ResolvedRho", "resolve", "says_nothing", "with_model"]


@dataclass(frozen=True)
class _Defaults:
    """What a training has that says nothing else, measured in `docs/results/zero-flag.md`."""

    epochs: int
    ensemble: int
    lr: float
    beta2: float


_SHARED = 8  # networks with one set of weights
_FOUND = _Defaults(epochs=40, ensemble=4, lr=5e-3, beta2=0.95)
_NOISELESS = _Defaults(epochs=40, ensemble=1, lr=1e-3, beta2=0.95)
_GIVEN = _Defaults(epochs=20, ensemble=1, lr=1e-3, beta2=0.999)
_EPOCHS_WITHIN_A_BUDGET = 1_000
_DROPOUT = 0.1  # of classifiers
_DECIDED = ("dropout", "linear_skip")
"""Options of a model that follow from the data."""
SMALLEST_IMAGE = 8  # pixels, of what `cnn` takes
SHORTEST_SEQUENCE = 8  # steps
_LARGEST_DEFAULT_BATCH = 128
_BATCHES = ((5_000, 32), (20_000, 64))
"""Examples in a step of one network where the length is found, by the training split's size that they go up to."""
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
    ensemble: int
    ensemble_style: Literal["independent", "shared"]
    optimizer: ResolvedOptimizer
    rho: ResolvedRho

    @property
    def expected_steps(self) -> int:
        """Theta steps that the run takes as far as is known before: what it logs and keeps is spaced by them."""
        return self.steps if self.usual_steps is None else min(self.steps, self.usual_steps)

    @property
    def shares(self) -> int:
        """Parts of a batch that networks are dealt; 1 where they are compared, and all see all of it."""
        return 1 if _together(self) else self.ensemble

    @property
    def rows(self) -> int:
        """Examples in a step of one such network that trains alone."""
        return max(1, self.batch_size // _parts(self))

    @property
    def evaluation_interval(self) -> int:
        """Theta steps between evaluations of the splits."""
        return max(1, math.ceil(self.steps / self.evaluations))

    @property
    def gradient_evaluations(self) -> int:
        """Forward and backward passes of an example in a theta step."""
        return optimizer_kind(self.optimizer.name).gradient_evaluations

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
    defaults = _defaults(config, data)
    if config.ensemble_style is None:
        config = config.model_copy(update={"ensemble_style": _style(config, data)})
    if config.ensemble is None:
        most = _SHARED if config.ensemble_style == "shared" and defaults.ensemble > 1 else defaults.ensemble
        config = config.model_copy(update={"ensemble": _networks(config, data, workers, most)})
    if len(sizes) > 1 and workers > data.num_train:
        raise UserError(
            f"{sizes[0]} to {sizes[-1]} workers cannot share a batch evenly: it would have {workers} examples; "
            "give a min_workers nearer to workers"
        )
    size = _batch_size(config, data, workers)
    most = defaults.epochs if config.budget is None else _EPOCHS_WITHIN_A_BUDGET
    epoch = data.num_train // max(size, 1)
    # where all networks see all rows, a pass of theirs is as many
    passes = config.ensemble or 1 if _together(config) else 1
    steps = config.steps or (config.epochs or most) * epoch // passes
    bounded = config.budget is not None and config.steps is None and config.epochs is None
    usual = max(1, defaults.epochs * epoch // passes) if bounded else None
    dropout = _dropout(config, data)
    regularizers = _regularizers(config, _weight_decay(config, data), dropout)
    rho = config.rho.model_dump() | {
        "interval": config.rho.interval or min(_DEFAULT_INTERVAL, max(1, (usual or steps) // _FEWEST_UPDATES)),
        "batch_size": config.rho.batch_size or _rho_batch_size(config, data, workers, size),
        "estimator": config.rho.estimator or _estimator(config),
    }
    if config.data.stream is None and can_stream(config.data.name):
        # a run that goes on where less memory is free reads its data as it did before
        config = config.model_copy(update={"data": config.data.model_copy(update={"stream": data.stream is not None})})
    return ResolvedConfig.model_validate(
        config.model_dump()
        | {
            "optimizer": config.optimizer.model_dump()
            | {
                "lr": config.optimizer.lr or optimizer_kind(config.optimizer.name).lr() or defaults.lr,
                "beta2": config.optimizer.beta2 or defaults.beta2,
            },
            "steps": max(steps, 1),
            "usual_steps": usual,
            "batch_size": size,
            "rho": rho,
            "regularizers": regularizers,
            "model_options": _model_options(config, data, regularizers, dropout),
        }
    )


def _defaults(config: TrainConfig, data: Dataset) -> _Defaults:
    if not config.finds_length:
        return _GIVEN
    explained = explained_linearly(data) if config.model == "mlp" else None
    return _FOUND if explained is None or explained < NEARLY_ALL else _NOISELESS


def says_nothing(config: ResolvedConfig, data: Dataset) -> bool:
    """Say whether a training is what comes of data and a model alone, with no other setting."""
    options = {name: value for name, value in config.model_options.items() if name not in _DECIDED}
    plain = TrainConfig(model=config.model, model_options=options, data=config.data, seed=config.seed)
    usual = not config.data.raw and config.data.reg_share is None
    return usual and resolve(plain, data).model_dump() == config.model_dump()


def _regularizers(config: TrainConfig, weight_decay: float, dropout: float) -> dict[str, RegularizerConfig]:
    """Return all that regularizes, with what a training has that says nothing about it."""

    def fixed(value: float) -> RegularizerConfig:
        return RegularizerConfig(learn=False, value=value)

    found = dict(config.regularizers)
    if config.finds_length:
        if dropout and "dropout" not in found and not models.is_custom(config.model):
            found["dropout"] = fixed(dropout)
        # fitted at the end
        found.setdefault("temperature", fixed(1.0))
    if "weight_decay" not in found:
        own = optimizer_kind(config.optimizer.name).weight_decay
        found["weight_decay"] = fixed(weight_decay if own is None else own)
    return found


def with_model(config: TrainConfig, data: Dataset) -> TrainConfig:
    """Return the configuration with a model: its own, or where it names none one that takes such data."""
    model = _model_for(data) if config.model == BY_DATA else config.model
    return config.model_copy(update={"model": model})


def _model_for(data: Dataset) -> str:
    """Return the name of a model that takes such data."""
    shape = data.input_shape
    if len(shape) == 3 and min(shape[1:]) >= SMALLEST_IMAGE:
        return "cnn"
    if isinstance(data.inputs, Sequence) and (data.inputs.lengths_differ or shape[1] >= SHORTEST_SEQUENCE):
        return "cnn1d"
    return "mlp"


def _batch_size(config: TrainConfig, data: Dataset, workers: int) -> int:
    """Return examples in a step: as configured, else 128 or what the smaller split allows, shared evenly by workers."""
    if config.batch_size is not None:
        return config.batch_size
    if config.finds_length:
        # averages and a constant rate take many steps rather than large ones
        rows = next((rows for most, rows in _BATCHES if data.num_train <= most), _LARGEST_DEFAULT_BATCH)
        parts = _parts(config)
        size = parts * max(2 * workers, min(rows, _power_of_two(data.num_train // (2 * parts))))
    else:
        size = min(_LARGEST_DEFAULT_BATCH, _power_of_two(min(data.num_train, len(data.reg) or data.num_train)))
    return max(workers, size // workers * workers)


def _networks(config: TrainConfig, data: Dataset, workers: int, most: int) -> int:
    """Return how many networks there are: as many as is usual, or as each can have two examples of a batch."""
    rows = config.batch_size or data.num_train
    return most if _together(config) else max(1, min(most, rows // (2 * workers)))


def _style(config: TrainConfig, data: Dataset) -> str:
    """Return whether networks have weights of their own: measured in `docs/results/ensembles.md`."""
    shared = config.finds_length and config.model == "mlp" and isinstance(data.inputs, Table)
    return "shared" if shared else "independent"


def _parts(config: TrainConfig) -> int:
    """Return how many networks a batch is for: of those that share weights it is as large as of the usual number."""
    networks = config.ensemble or 1
    if _together(config) or networks == 1:
        return 1
    return _FOUND.ensemble if config.ensemble_style == "shared" else networks


def _together(config: TrainConfig) -> bool:
    """Say whether the networks of an ensemble are compared, and so see the same rows."""
    return any(entry.name in config.regularizers for entry in BETWEEN)


def _power_of_two(most: int) -> int:
    """Return the largest power of two up to a number, at least 1."""
    return 2 ** int(math.log2(max(most, 1)))


def _rho_batch_size(config: TrainConfig, data: Dataset, workers: int, size: int) -> int:
    """Return the examples of a rho update over all workers.

    Augmentation is learned from the product of two gradients over randomly changed images, so there it is up to 512:
    with 128 their noise shrinks what is learned (measured in `docs/results/augmentation.md`).
    """
    if not any(regularizer(name).changes_images for name in config.learned):
        few = _power_of_two(len(data.reg)) // workers * workers
        return min(size, few) if config.finds_length and few else size
    rows = min(_LARGEST_AUGMENTATION_BATCH, len(data.reg.x), data.num_train)
    return max(rows // workers, 1) * workers


def _estimator(config: TrainConfig) -> str:
    return "direct" if all(description(name).direct for name in config.learned) else "unrolled"


def _weight_decay(config: TrainConfig, data: Dataset) -> float:
    """Return that of the optimizer, by kind of data where the length is found."""
    if not config.finds_length:
        return 0.01
    if data.task == "regression":  # it would shrink what is predicted
        return 0.05
    return 0.5 if isinstance(data.inputs, Table) else 0.2


def _dropout(config: TrainConfig, data: Dataset) -> float:
    """Return that of a model which says none and takes one, where the length is found; 0 for all else."""
    if not config.finds_length or "dropout" in config.model_options or not models.takes(config.model, "dropout"):
        return 0.0
    return _DROPOUT if data.task == "classification" else 0.0  # what is dropped changes the scale of a number


def _model_options(
    config: TrainConfig, data: Dataset, regularizers: Mapping[str, RegularizerConfig], dropout: float
) -> dict[str, Any]:
    """Return the model's options; a model that builds dropout only when asked for is asked."""
    options = dict(config.model_options)
    if config.model == "mlp" and "linear_skip" not in options and explained_linearly(data) is not None:
        options["linear_skip"] = True
    if dropout and "dropout" not in regularizers:
        options["dropout"] = dropout  # of one's own function, which may have no layer that could be set
    if "dropout" in regularizers and "dropout" not in options and models.takes(config.model, "dropout"):
        options["dropout"] = regularizers["dropout"].value
    return options
