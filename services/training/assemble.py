"""From a configuration and its data to a `Trainer`: no Ray here, so any process can build the same training."""

from __future__ import annotations

import math
from collections.abc import Collection
from typing import Any

import numpy as np
import torch
from torch import nn

from crossreg.batches import Batches, Preprocess, augmentation
from crossreg.regularizers.registry import AUGMENTATIONS, regularize
from crossreg.core.distributed import world_size
from crossreg.core.errors import UserError
from crossreg.estimators import T1T2, Estimator, Implicit, HypergradientEstimator, Unrolled, direct_gradient
from crossreg.regularizers.knobs import set_knobs
from crossreg.losses import as_loss
from crossreg.models import build
from crossreg.regularizers.noise import dropout_layers, inject_noise
from crossreg.regularizers.penalties import training_loss
from crossreg.core.random import derive_seed, seed_everything
from crossreg.regularizer import CrossRegularizer
from crossreg.training.trainer import Callback, Trainer
from services.data import Dataset, Split
from services.training.config import TrainConfig
from services.training.optimizers import build_optimizer
from services.training.storage import read_checkpoint

__all__ = [
    "about",
    "batch_size",
    "build_model",
    "build_trainer",
    "check",
    "estimator",
    "evaluation_interval",
    "gradient_passes",
    "interim_rows",
    "num_steps",
    "rho_batch_size",
    "rho_interval",
    "settled",
    "starting_state",
]

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_LARGEST_DEFAULT_BATCH = 128
_EVALUATION_BATCH = 500
_RESPONSE_BATCH = 512


def batch_size(config: TrainConfig, data: Dataset, workers: int) -> int:
    """Return examples in a step: as configured, else 128 or what the smaller split allows, shared evenly by workers."""
    if config.batch_size is not None:
        return config.batch_size
    smallest = min(len(data.train), len(data.reg) or len(data.train))
    size = min(_LARGEST_DEFAULT_BATCH, 2 ** int(math.log2(max(smallest, 1))))
    return max(workers, size // workers * workers)


def settled(config: TrainConfig, data: Dataset, sizes: range) -> TrainConfig:
    """Return the configuration with what would depend on the number of workers written into it.

    Args:
        config: what to train.
        data: on what.
        sizes: how many workers may train together.

    Raises:
        UserError: something in it does not fit one of these numbers.
    """
    if len(sizes) > 1:
        shares = math.lcm(*sizes)
        if shares > len(data.train):
            raise UserError(
                f"{sizes[0]} to {sizes[-1]} workers cannot share a batch evenly: it would have {shares} examples; "
                "give a min_workers nearer to workers"
            )
        rho = config.rho.model_copy(update={"batch_size": rho_batch_size(config, data, shares)})
        size, steps = batch_size(config, data, shares), num_steps(config, data, shares)
        config = config.model_copy(update={"batch_size": size, "steps": steps, "rho": rho})
    for workers in sizes:
        check(config, data, workers)
    return config


def starting_state(config: TrainConfig, data: Dataset, location: str, steps: int) -> dict[str, Any]:
    """Return the state of a checkpoint that a new run starts from.

    Args:
        config: what to train.
        data: on what.
        location: path or URI of the checkpoint.
        steps: of the whole run.

    Raises:
        UserError: no such file, one that is damaged, of another training, or of a step that the run does not pass.
    """
    state = read_checkpoint(location, **about(config, data))
    try:
        build_model(config, data).load_state_dict(state["model"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"checkpoint {location} does not hold the weights of this model: {reason}") from None
    if state["step"] >= steps:
        raise UserError(
            f"checkpoint {location} is of step {state['step']}, and this run has {steps}; give more --epochs or "
            "--steps to go on from it"
        )
    return state


def num_steps(config: TrainConfig, data: Dataset, workers: int) -> int:
    """Return the theta steps of the whole run."""
    return config.steps or config.epochs * (len(data.train) // batch_size(config, data, workers))


def rho_batch_size(config: TrainConfig, data: Dataset, workers: int) -> int:
    """Return the examples of a rho update over all workers: as configured, else those of training.

    Augmentation is learned from the product of two gradients over randomly changed images, so there it is up to 512:
    with 128 their noise shrinks what is learned (measured in `docs/results/augmentation.md`).
    """
    if config.rho.batch_size or not AUGMENTATIONS & set(config.learn):
        return config.rho.batch_size or batch_size(config, data, workers)
    rows = min(_RESPONSE_BATCH, len(data.reg.x), len(data.train.x))
    return max(rows // workers, 1) * workers


def rho_interval(config: TrainConfig, steps: int) -> int:
    """Return the steps between rho updates: as configured, else 30, or what gives a very short run 16 updates.

    More updates bring sigma further and cost steps of theta, which short runs need more; see `docs/method/noise.md`.
    """
    return config.rho.interval or min(30, max(1, steps // 16))


def evaluation_interval(config: TrainConfig, steps: int) -> int:
    """Return the steps between evaluations of the splits."""
    return max(1, math.ceil(steps / config.evaluations))


def interim_rows(config: TrainConfig, num_test: int) -> np.ndarray | None:
    """Return which test examples stand for all of them during training; None where all do."""
    if config.interim_test is None or config.interim_test >= num_test:
        return None
    return np.linspace(0, num_test - 1, config.interim_test).round().astype(int)


def gradient_passes(config: TrainConfig) -> int:
    """Return the forward and backward passes of an example in a theta step."""
    return 2 if config.optimizer.name in ("sam", "gsam") else 1


def estimator(config: TrainConfig, x: torch.Tensor, y: torch.Tensor, rows: int, **options: Any) -> Estimator:
    """Return how the gradient in rho is estimated.

    Args:
        config: names the estimator.
        x: inputs of the training split, for an estimator that differentiates a step of theta.
        y: their targets.
        rows: in a batch of them.
        options: of these `Batches`.
    """
    rho = config.rho
    if rho.estimator == "direct":
        return direct_gradient
    train = Batches(x, y, rows, **options)
    if rho.estimator == "unrolled":
        return Unrolled(train, steps=rho.unroll_steps)
    return Implicit(train, terms=rho.neumann_terms) if rho.estimator == "implicit" else T1T2(train)


def build_model(config: TrainConfig, data: Dataset) -> nn.Module:
    """Return the model on the CPU, with noise and what else the method has."""
    model = build(config.model, input_shape=data.input_shape, num_outputs=data.num_outputs, **config.model_options)
    if config.noisy:
        inject_noise(model, **config.noise.in_force())
    return regularize(model, config.learn)


def check(config: TrainConfig, data: Dataset, workers: int) -> None:
    """Find what would fail later: a model that does not fit the data, a batch that does not fit a split.

    Raises:
        UserError: names the value and what is allowed.
    """
    size = batch_size(config, data, workers)
    if size % workers:
        raise UserError(f"batch size is {size}; it must be a multiple of the {workers} workers")
    if size > len(data.train.x):
        raise UserError(f"batch size is {size}, but the training split has {len(data.train.x)} examples")
    reg = rho_batch_size(config, data, workers)
    if config.method == "crossreg" and reg > len(data.reg.x):
        raise UserError(
            f"the regularization split has {len(data.reg.x)} examples, fewer than its batch of {reg}; use a smaller "
            "batch size (--batch-size, or rho.batch_size) or hold out more (--reg-share)"
        )
    if config.method == "crossreg" and reg % workers:
        raise UserError(f"rho.batch_size is {reg}; it must be a multiple of the {workers} workers")
    for name, split in (("test", data.test), ("regularization", data.reg)):
        if 0 < len(split) < workers:
            raise UserError(f"the {name} split has {len(split)} examples, fewer than the {workers} workers")
    if config.augment != "none" and len(data.input_shape) != 3:
        raise UserError(f"augment is {config.augment!r}, but {data.name} holds no images; use 'none'")
    torch.manual_seed(0)
    model = build_model(config, data)
    if config.mc_dropout and not dropout_layers(model):
        raise UserError(
            f"mc_dropout is on, but model {config.model!r} has no dropout layer; give it some, e.g. "
            "model_options: {dropout: 0.2}, or turn mc_dropout off"
        )
    steps = num_steps(config, data, workers)
    set_knobs(model, build_optimizer(config.optimizer, list(model.parameters()), steps), config.knobs)
    rows = size // workers  # as many as a worker gets: BatchNorm needs two
    if config.method == "crossreg" and config.rho.estimator != "direct":
        rows = min(rows, reg // workers)
    x = _preprocess(data)(torch.from_numpy(data.train.x[:2].copy()))
    try:
        with torch.no_grad():
            model.train()(x[:rows])
            output = model.eval()(x)
    except Exception as error:
        raise UserError(
            f"model {config.model!r} cannot take {data.name}'s examples of shape {data.input_shape}: {error}"
        ) from error
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != (2, data.num_outputs):
        given = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(
            f"model {config.model!r} returns {given} for 2 examples; it must return (2, {data.num_outputs})"
        )
    if config.learn:
        training_loss(model, as_loss(data.task), output, torch.from_numpy(_targets(data, data.train)[:2].copy()))


def build_trainer(
    config: TrainConfig,
    data: Dataset,
    device: torch.device,
    callbacks: list[Callback] | None = None,
    selection: Collection[str] = (),
) -> Trainer:
    """Return the training on this process's rank; equal seeds build equal models on every rank."""
    workers = world_size()
    size = batch_size(config, data, workers)
    seed_everything(derive_seed(config.seed, "model"))
    model = build_model(config, data).to(device)
    if len(data.input_shape) == 3:
        # convolutions run a third faster so, on CPUs and tensor cores alike
        model = model.to(memory_format=torch.channels_last)
    preprocess = _preprocess(data).to(device)

    def batches(split: Split, name: str, rows: int, **options: Any) -> Batches:
        x, y = torch.from_numpy(split.x), torch.from_numpy(_targets(data, split))
        return Batches(x, y, rows, preprocess=preprocess, seed=derive_seed(config.seed, name), device=device, **options)

    train = batches(data.train, "train", size, drop_last=True, augment=augmentation(config.augment))
    evaluation_batch = _EVALUATION_BATCH * workers
    evaluations = {"test": batches(data.test, "test", evaluation_batch, shuffle=False)}
    interim = {}
    if (rows := interim_rows(config, len(data.test))) is not None:
        few = Split(data.test.x[rows], data.test.y[rows])
        interim["test"] = batches(few, "test", evaluation_batch, shuffle=False)
    if len(data.reg.x):
        evaluations["reg"] = batches(data.reg, "reg", evaluation_batch, shuffle=False)
    loss = as_loss(data.task)
    steps = num_steps(config, data, workers)
    regularizer = None
    if config.method == "crossreg":
        rho, rho_size = config.rho, rho_batch_size(config, data, workers)
        estimated = estimator(
            config,
            train.x,
            train.y,
            rho_size,
            drop_last=True,
            augment=train.augment,
            preprocess=preprocess,
            device=device,
            seed=derive_seed(config.seed, "response"),  # an order of its own: not the batch theta has just stepped on
        )
        regularizer = CrossRegularizer(
            model,
            loss,
            batches(data.reg, "rho", rho_size, drop_last=True),
            rho_interval(config, steps),
            rho.samples,
            lr=rho.lr,
            temperature=rho.temperature,
            estimator=estimated,
            seed=derive_seed(config.seed, "rho"),
        )
    theta = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(config.optimizer, regularizer.theta if regularizer else theta, steps)
    if regularizer is not None and isinstance(regularizer.estimator, HypergradientEstimator):
        regularizer.estimator.optimizer = optimizer
    set_knobs(model, optimizer, config.knobs)
    return Trainer(
        model,
        loss,
        optimizer,
        train,
        regularizer=regularizer,
        scheduler=_scheduler(config, optimizer, steps),
        closure=gradient_passes(config) > 1,
        steps=steps,
        evaluations=evaluations,
        interim=interim,
        final_whole=config.final_test,
        selection=selection,
        evaluate_every=evaluation_interval(config, steps),
        evaluate_samples=config.evaluate_samples,
        final_samples=config.final_samples,
        sample_dropout=config.mc_dropout,
        log_every=max(1, steps // 300),
        callbacks=callbacks or (),
        autocast=_PRECISIONS[config.precision],
        seed=config.seed,
    )


def about(config: TrainConfig, data: Dataset) -> dict[str, Any]:
    """Return what a checkpoint says of itself, and what a resumed run compares."""
    # named where it is not the default, so that checkpoints from before there was a choice still load
    estimated: dict[str, Any] = {} if config.rho.estimator == "direct" else {"estimator": config.rho.estimator}
    if config.rho.estimator == "unrolled":
        estimated["unroll_steps"] = config.rho.unroll_steps
    if config.rho.estimator == "implicit":
        estimated["neumann_terms"] = config.rho.neumann_terms
    return {
        "model": config.model,
        "model_options": dict(config.model_options),
        "method": config.method,
        "noise": config.noise.in_force() if config.noise.on else None,
        "knobs": dict(config.knobs),
        **({"learn": dict(config.learn)} if config.learn else {}),
        "data": data.fingerprint,
        "precision": config.precision,
        "optimizer": config.optimizer.in_force(),
        "rho": {"lr": config.rho.lr, "temperature": config.rho.temperature, **estimated},
    }


def _preprocess(data: Dataset) -> Preprocess:
    return Preprocess(torch.from_numpy(data.mean), torch.from_numpy(data.std))


def _targets(data: Dataset, split: Split) -> Any:
    # regression trains in units of the target's spread, so that defaults fit every table
    if data.task == "classification":
        return split.y
    return ((split.y - data.target_mean) / data.target_std).astype("float32")


def _scheduler(
    config: TrainConfig, optimizer: torch.optim.Optimizer, steps: int
) -> torch.optim.lr_scheduler.LRScheduler | None:
    if config.optimizer.schedule == "constant":
        return None
    # a function of the total, which is not part of its state: a run resumed with more steps follows the longer curve
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / steps, 1)))
    )
