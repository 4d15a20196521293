"""From a resolved configuration and its data to a `Trainer`: without Ray, so that any process can build it."""

from __future__ import annotations

import math
import warnings
from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from crossreg.batches import Batches, Preprocess, StreamedBatches, augmentation
from crossreg.core.distributed import world_size
from crossreg.core.random import derive_seed, seed_everything
from crossreg.estimators import T1T2, Direct, Estimator, Implicit, Unrolled
from crossreg.losses import as_loss
from crossreg.models import build_ensemble, is_custom
from crossreg.prediction.evaluation import EvaluationPlan
from crossreg.regularizer import CrossRegularizer
from crossreg.regularizers.base import rho_hyperparameters
from crossreg.regularizers.registry import attach
from crossreg.services.data import Dataset, Split
from crossreg.services.training.allocator import keep_freed_memory
from crossreg.services.training.budget import parse_budget
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.fine_tuning import fine_tune
from crossreg.services.training.linear import start_from_linear
from crossreg.services.training.optimizers import optimizer_kind
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.training.callback import Callback
from crossreg.training.course import Course
from crossreg.training.rules import stopping_rule
from crossreg.training.stopping import StopByRule
from crossreg.training.trainer import Trainer

__all__ = [
    "build_estimator",
    "build_model",
    "build_optimizer",
    "build_trainer",
    "checkpoint_identity",
    "interim_rows",
    "learned_names",
    "preprocess_of",
    "takes_integers",
    "targets_of",
]

_PRECISIONS = {"float32": None, "bfloat16": torch.bfloat16, "float16": torch.float16}
_EVALUATION_BATCH = 500


def build_model(config: TrainConfig, data: Dataset) -> nn.Module:
    """Return the model on the CPU, with all that regularizes it."""
    shape, outputs = data.input_shape, data.num_outputs
    model = build_ensemble(
        config.model,
        config.ensemble or 1,
        data.task,
        config.ensemble_style or "independent",
        input_shape=shape,
        num_outputs=outputs,
        options=config.model_options,
    )
    return attach(
        model,
        {name: one.initial for name, one in config.regularizers.items()},
        {name: one.options for name, one in config.regularizers.items() if one.options},
    )


def build_optimizer(config: ResolvedConfig, theta: list[nn.Parameter]) -> torch.optim.Optimizer:
    """Return the optimizer of theta."""
    kind = optimizer_kind(config.optimizer.name)
    return kind.build(config.optimizer, theta, config.weight_decay, config.expected_steps)


def learned_names(config: TrainConfig, model: nn.Module) -> list[str]:
    """Return the names of the hyperparameters that a training learns, parts and all: what a search has to search."""
    settings = config.regularizers
    found = rho_hyperparameters(model)
    return [
        name
        for name, one in found.items()
        if (own := settings.get(name, settings.get(one.base))) is not None and own.learn
    ]


def build_estimator(config: ResolvedConfig, x: torch.Tensor, y: torch.Tensor, rows: int, **options: Any) -> Estimator:
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
        return Direct()
    train = Batches(x, y, rows, **options)
    if rho.estimator == "unrolled":
        return Unrolled(train, steps=rho.unroll_steps)
    return Implicit(train, terms=rho.neumann_terms) if rho.estimator == "implicit" else T1T2(train)


def interim_rows(config: TrainConfig, num_test: int) -> np.ndarray | None:
    """Return which test examples stand for all of them during training; None where all do."""
    if config.interim_test is None or config.interim_test >= num_test:
        return None
    return np.linspace(0, num_test - 1, config.interim_test).round().astype(int)


@dataclass
class _Inputs:
    """The batches of a training on this process's rank."""

    config: ResolvedConfig
    data: Dataset
    device: torch.device

    def __post_init__(self) -> None:
        found = preprocess_of(self.data, self.config.model)
        self.preprocess = None if found is None else found.to(self.device)
        self.augment = augmentation(self.config.augment)

    def of(self, split: Split, name: str, rows: int, **options: Any) -> Batches:
        """Return batches of a split, in an order that the name decides."""
        with warnings.catch_warnings():
            # an array in Ray's object store is read-only, and nothing here writes into the data
            warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
            x, y = torch.from_numpy(split.x), torch.from_numpy(targets_of(self.data, split))
        seed = derive_seed(self.config.seed, name)
        return Batches(x, y, rows, preprocess=self.preprocess, seed=seed, device=self.device, **options)

    def trained_on(self, name: str) -> Batches:
        """Return batches of the training split ("train"), or of that and the regularization split ("everything")."""
        rows, data = self.config.batch_size, self.data
        if data.stream is not None:
            from crossreg.services.training.feed import feed

            stream = data.stream.train if name == "train" else data.stream.everything
            seed, y = derive_seed(self.config.seed, name), stream.y
            return StreamedBatches(
                torch.from_numpy(as_targets(data, y)),
                rows,
                feed(stream, rows, seed, lambda some: as_targets(data, some)),
                preprocess=self.preprocess,
                augment=self.augment,
                seed=seed,
                device=self.device,
            )
        split = data.train
        if name == "everything":
            split = Split(*(np.concatenate(parts) for parts in ((split.x, data.reg.x), (split.y, data.reg.y))))
        return self.of(split, name, rows, drop_last=True, augment=self.augment)

    def evaluation(self, selection: Collection[str]) -> EvaluationPlan:
        """Return what is evaluated, when and with how many draws."""
        config, data, rows = self.config, self.data, _EVALUATION_BATCH * world_size()
        splits = {"test": self.of(data.test, "test", rows, shuffle=False)}
        if len(data.reg.x):
            splits["reg"] = self.of(data.reg, "reg", rows, shuffle=False)
        interim = {}
        if (few := interim_rows(config, len(data.test))) is not None:
            interim["test"] = self.of(Split(data.test.x[few], data.test.y[few]), "test", rows, shuffle=False)
        return EvaluationPlan(
            splits,
            interim,
            whole_at_end=config.final_test,
            selection=frozenset(selection) | ({"reg"} if config.stopping or config.finds_length else set()),
            every=config.evaluation_interval,
            samples=config.evaluate_samples,
            final_samples=config.final_samples,
            dropout=config.mc_dropout,
        )

    def course(self) -> Course | None:
        """Return what decides how long to train; None where that is given."""
        if not self.config.finds_length:
            return None
        return Course(
            self.trained_on("everything"), budget=parse_budget(self.config.budget) if self.config.budget else None
        )

    def regularizer(self, model: nn.Module, train: Batches) -> CrossRegularizer | None:
        """Return what learns rho; None where nothing is learned."""
        config, rho = self.config, self.config.rho
        names = learned_names(config, model)
        if not names:
            return None
        estimator: Estimator = Direct()
        if rho.estimator != "direct":
            estimator = build_estimator(
                config,
                train.x,
                train.y,
                rho.batch_size,
                drop_last=True,
                augment=train.augment,
                preprocess=self.preprocess,
                device=self.device,
                seed=derive_seed(config.seed, "response"),  # an order of its own: not theta's last batch
            )
        return CrossRegularizer(
            model,
            as_loss(self.data.task),
            self.of(self.data.reg, "rho", rho.batch_size, drop_last=True),
            rho.interval,
            rho.samples,
            lr=rho.lr,
            learn=names,
            estimator=estimator,
            seed=derive_seed(config.seed, "rho"),
        )


def build_trainer(
    config: ResolvedConfig,
    data: Dataset,
    device: torch.device,
    callbacks: list[Callback] | None = None,
    selection: Collection[str] = (),
) -> Trainer:
    """Return the training on this process's rank; equal seeds build equal models on every rank."""
    keep_freed_memory()
    seed_everything(derive_seed(config.seed, "model"))
    model = build_model(config, data)
    start_from_linear(model, data)
    fine_tune(model, config, data.num_outputs)
    model = model.to(device)
    if len(data.input_shape) == 3:
        # convolutions run a third faster so, on CPUs and tensor cores alike
        model = model.to(memory_format=torch.channels_last)
    inputs = _Inputs(config, data, device)
    train = inputs.trained_on("train")
    evaluation = inputs.evaluation(selection)
    regularizer = inputs.regularizer(model, train)
    theta = [parameter for parameter in model.parameters() if parameter.requires_grad]
    optimizer = build_optimizer(config, regularizer.theta if regularizer else theta)
    if regularizer is not None:
        regularizer.estimator.optimizer = optimizer
    rule = stopping_rule(config.stopping)
    return Trainer(
        model,
        as_loss(data.task),
        optimizer,
        train,
        regularizer=regularizer,
        scheduler=_scheduler(config, optimizer),
        closure=config.gradient_evaluations > 1,
        steps=config.steps,
        evaluation=evaluation,
        log_every=max(1, config.expected_steps // 300),
        callbacks=[*([StopByRule(rule)] if rule else []), *(callbacks or ())],
        autocast=_PRECISIONS[config.precision],
        seed=config.seed,
        course=inputs.course(),
    )


def checkpoint_identity(config: ResolvedConfig, data: Dataset) -> dict[str, Any]:
    """Return what a checkpoint says of itself, and what a resumed run compares."""
    kind, rho = optimizer_kind(config.optimizer.name), config.rho
    return {
        "model": config.model,
        "model_options": dict(config.model_options),
        "ensemble": config.ensemble,
        "ensemble_style": config.ensemble_style,
        "freeze": list(config.freeze),
        "regularizers": {name: one.model_dump(mode="json") for name, one in config.regularizers.items()},
        "data": data.fingerprint,
        "precision": config.precision,
        "optimizer": config.optimizer.model_dump(include={"lr", "schedule", *kind.options}) | kind.identity(),
        "rho": rho.model_dump(include={"lr", "estimator", "unroll_steps", "neumann_terms"}),
    }


def preprocess_of(data: Dataset, model: str) -> Preprocess | None:
    """Return what turns stored values into the model's inputs; None where it takes integers as they are."""
    if takes_integers(data, model):
        return None
    return Preprocess(torch.tensor(data.mean), torch.tensor(data.std))


def takes_integers(data: Dataset, model: str) -> bool:
    """Say whether the model gets whole numbers as they are, as tokens: one's own does, those here take floats."""
    return is_custom(model) and data.train.x.dtype == "int64"


def targets_of(data: Dataset, split: Split) -> np.ndarray:
    """Return what the model is trained to return: classes, or numbers in units of the target's spread."""
    return as_targets(data, split.y)


def as_targets(data: Dataset, y: np.ndarray) -> np.ndarray:
    """Return the same for the targets of any split."""
    # so that defaults fit every table
    if data.task == "classification":
        return y
    scaled: np.ndarray = ((y - data.target_mean) / data.target_std).astype("float32")
    return scaled


def _scheduler(config: ResolvedConfig, optimizer: torch.optim.Optimizer) -> torch.optim.lr_scheduler.LRScheduler | None:
    if config.optimizer.schedule != "cosine":
        return None
    # a function of the total, which is not part of its state: a run resumed with more steps follows the longer curve
    return torch.optim.lr_scheduler.LambdaLR(
        optimizer, lambda step: 0.5 * (1 + math.cos(math.pi * min(step / config.steps, 1)))
    )
