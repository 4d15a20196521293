"""What can be found wrong with a training before it starts: a batch that fits no split, a model that fits no data."""

from __future__ import annotations

from typing import Any

import torch

from crossreg import models
from crossreg.core.errors import UserError, some
from crossreg.core.modules import keep_evaluation_modes, own_name, train_mode
from crossreg.inputs import Sequence
from crossreg.losses import as_loss
from crossreg.regularizers.base import RhoModule
from crossreg.regularizers.noise import dropout_layers
from crossreg.services.data import Dataset
from crossreg.services.training.assemble import (
    build_model,
    build_optimizer,
    checkpoint_identity,
    preprocess_of,
    targets_of,
)
from crossreg.services.training.fine_tuning import fine_tune
from crossreg.services.training.optimizers import optimizer_kind
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.services.training.storage import read_checkpoint
from crossreg.training.unused import unused_parameters

__all__ = ["check", "starting_state"]


def check(config: ResolvedConfig, data: Dataset, sizes: range = range(1, 2)) -> list[str]:
    """Find what would fail later, and return what is to be said of the model, a line each.

    Args:
        config: what to train.
        data: on what.
        sizes: how many workers may train together.

    Raises:
        UserError: names the value and what is allowed.
    """
    kind = optimizer_kind(config.optimizer.name)
    if config.learned and config.rho.estimator in ("unrolled", "implicit") and not kind.has_step_sizes:
        raise UserError(
            f"{', '.join(config.learned)} would be learned by the {config.rho.estimator} gradient, which needs to "
            f"know how far the optimizer goes for a unit of gradient, and {config.optimizer.name!r} does not say; use "
            "adamw or sgd, or learn what the direct gradient reaches"
        )
    if config.learned and config.rho.estimator != "direct" and data.stream is not None:
        raise UserError(
            f"{', '.join(config.learned)} would be learned by the {config.rho.estimator} gradient, which takes "
            "training examples of its own at every update, and they are read from disk, each once an epoch; learn what "
            "the direct gradient reaches (noise, temperature), or use --no-stream where they fit into memory"
        )
    for workers in sizes:
        _check_batches(config, data, workers)
    if config.augment != "none" and len(data.input_shape) != 3:
        raise UserError(f"augment is {config.augment!r}, but {data.name} holds no images; use 'none'")
    return _check_model(config, data, sizes[-1])


def _check_batches(config: ResolvedConfig, data: Dataset, workers: int) -> None:
    size, reg = config.batch_size, config.rho.batch_size
    if size % workers:
        raise UserError(f"batch size is {size}; it must be a multiple of the {workers} workers")
    if config.shares > 1 and size // workers < 2 * config.shares:
        raise UserError(
            f"batch size is {size}, which {workers} worker{'s' if workers > 1 else ''} share and then "
            f"{config.shares} networks: each needs two examples at least; use a larger --batch-size or a smaller "
            "--ensemble"
        )
    if size > data.num_train:
        raise UserError(f"batch size is {size}, but the training split has {data.num_train} examples")
    if config.learned and reg > len(data.reg.x):
        raise UserError(
            f"the regularization split has {len(data.reg.x)} examples, fewer than its batch of {reg}; use a smaller "
            "batch size (--batch-size, or rho.batch_size) or hold out more (--reg-share)"
        )
    few = config.learned and config.rho.estimator != "direct" and reg // workers < 2 * config.shares
    if config.shares > 1 and few:
        raise UserError(
            f"rho.batch_size is {reg}, and {config.shares} networks share it: each needs two examples at least; hold "
            "out more (--reg-share), or use a smaller --ensemble"
        )
    if config.learned and reg % workers:
        raise UserError(f"rho.batch_size is {reg}; it must be a multiple of the {workers} workers")
    for name, split in (("test", data.test), ("regularization", data.reg)):
        if 0 < len(split) < workers:
            raise UserError(f"the {name} split has {len(split)} examples, fewer than the {workers} workers")


def _check_model(config: ResolvedConfig, data: Dataset, workers: int) -> list[str]:
    """Build the model and take two examples through it; return what is not as usual with it."""
    padded = isinstance(data.inputs, Sequence) and data.inputs.lengths_differ
    if padded and not models.takes_padding(config.model):
        raise UserError(
            f"model {config.model!r} takes sequences of one length, and those of {data.name} differ; use cnn1d, lstm, "
            "gru or transformer, or cut them with --window"
        )
    torch.manual_seed(0)
    model = build_model(config, data)
    if config.mc_dropout and not dropout_layers(model):
        raise UserError(
            f"mc_dropout is on, but model {config.model!r} has no dropout layer; give it some, e.g. "
            "model_options: {dropout: 0.2}, or turn mc_dropout off"
        )
    notes = fine_tune(model, config, data.num_outputs)
    build_optimizer(config, [weight for weight in model.parameters() if weight.requires_grad])
    kept = keep_evaluation_modes(model, never=RhoModule)
    rows = config.batch_size // workers  # as many as a worker gets: BatchNorm needs two
    if config.learned and config.rho.estimator != "direct":
        rows = min(rows, config.rho.batch_size // workers)
    few = min(2 * config.shares, len(data.train))
    x = torch.from_numpy(data.train.x[:few].copy())
    y = torch.from_numpy(targets_of(data, data.train)[:few].copy())
    preprocess = preprocess_of(data, config.model)
    x = x if preprocess is None else preprocess(x)
    try:
        with torch.no_grad():
            train_mode(model)
            model(x[:rows])
            output = model.eval()(x)
    except Exception as error:
        raise UserError(
            f"model {config.model!r} cannot take {data.name}'s examples of shape {data.input_shape}: {error}"
        ) from error
    if not isinstance(output, torch.Tensor) or tuple(output.shape) != (few, data.num_outputs):
        given = tuple(output.shape) if isinstance(output, torch.Tensor) else type(output).__name__
        raise UserError(
            f"model {config.model!r} returns {given} for {few} examples; it must return ({few}, {data.num_outputs})"
        )
    unused = unused_parameters(model, as_loss(data.task), x[:rows], y[:rows])
    if padded and not bool(output.isfinite().all()):
        raise UserError(
            f"model {config.model!r} returns NaN or infinity for sequences of several lengths; it must leave out what "
            "follows their ends, which is NaN in every channel"
        )
    return [*notes, *_differences(config.model, model, kept, unused)]


def _differences(name: str, model: torch.nn.Module, kept: list[str], unused: list[str]) -> list[str]:
    """Say of a model of the user's own what is not as usual, and how it is taken."""
    said = []
    returns = {str(module.returns) for module in model.modules() if hasattr(module, "returns")}
    if returns:
        what = " or a ".join(sorted(returns))
        said.append(f"{name} returns a {what}: its logits, or the first element, are trained on, the rest is not used")
    if kept:
        said.append(f"{name}: left in evaluation mode, where statistics do not change: {some(map(own_name, kept))}")
    if unused:
        said.append(f"{name}: not trained, since the output does not depend on it: {some(map(own_name, unused))}")
    return said


def starting_state(config: ResolvedConfig, data: Dataset, location: str) -> dict[str, Any]:
    """Return the state of a checkpoint that a new run is to start from, once it is known to fit.

    Raises:
        UserError: it cannot be read, is of another training, or is of a step that the run does not reach.
    """
    state = read_checkpoint(location, **checkpoint_identity(config, data))
    try:  # the file may come from anywhere
        build_model(config, data).load_state_dict(state["model"])
    except (RuntimeError, KeyError, TypeError, AttributeError) as error:
        reason = " ".join(str(error).split())[:300]
        raise UserError(f"checkpoint {location} does not hold the weights of this model: {reason}") from None
    if state["step"] >= config.steps:
        raise UserError(
            f"checkpoint {location} is of step {state['step']}, and this run has {config.steps}; give more --epochs or "
            "--steps to go on from it"
        )
    return state
