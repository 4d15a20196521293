"""What is trained, and where it runs: two frozen objects, each validated when it is made."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import BaseModel, ConfigDict, Field, ValidationInfo, field_validator, model_validator

from crossreg.regularizers.registry import STARTS, check_names
from crossreg.regularizers.noise import DEFAULT_FORM, INITIAL_SIGMA
from services.data import DataConfig

__all__ = ["NoiseConfig", "OptimizerConfig", "Placement", "RhoConfig", "TrainConfig"]

_MOST = 10**9  # of anything that is counted: more is a slip of the keyboard, and overflows further on


class _Config(BaseModel):
    # NaN and infinity are numbers in YAML, and pass bounds such as "greater than 0"
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("true and false are for switches alone")  # to Python, true is the number 1
        return value


class NoiseConfig(_Config):
    """Where noise goes and how it starts; see `crossreg.inject_noise`. Off, there is none."""

    on: bool = True
    granularity: Literal["layer", "unit"] = "layer"
    form: Literal["additive", "multiplicative"] | None = None
    initial_sigma: float = Field(default=INITIAL_SIGMA, gt=0)
    where: tuple[str, ...] | None = None
    after: Literal["normalization", "dropout"] = "normalization"

    def in_force(self) -> dict[str, Any]:
        """Return the arguments of `inject_noise`."""
        # named where it is not the default, so that checkpoints from before there was a choice still load
        named = {"on", "after"} if self.after == "normalization" else {"on"}
        return {**self.model_dump(mode="json", exclude=named), "form": self.form or DEFAULT_FORM[self.after]}


class RhoConfig(_Config):
    """How rho is learned; see `crossreg.CrossRegularizer`.

    An interval of None is 30 steps, and fewer in short runs (see `assemble.rho_interval`); a batch size of None is
    that of training, or up to 512 where augmentation is learned (see `assemble.rho_batch_size`). The gradient
    `estimator` is one of `crossreg.estimators`: "direct" holds theta fixed; "t1-t2" follows it through one step, with
    one noise draw, whatever `samples` says; "unrolled" through `unroll_steps` steps; "implicit" to its minimum, by
    `neumann_terms` terms of a series.
    """

    interval: int | None = Field(default=None, ge=1, le=_MOST)
    samples: int = Field(default=3, ge=1, le=_MOST)
    lr: float = Field(default=0.1, gt=0)
    temperature: bool = True
    batch_size: int | None = Field(default=None, ge=1, le=_MOST)
    estimator: Literal["direct", "t1-t2", "unrolled", "implicit"] = "direct"
    unroll_steps: int = Field(default=1, ge=1, le=_MOST)
    neumann_terms: int = Field(default=10, ge=1, le=_MOST)


_OPTIONS = {"sam": {"radius"}, "gsam": {"radius", "surrogate_gap"}, "cpr": {"kappa_after", "kappa_update"}}
_ALL_OPTIONS = set().union(*_OPTIONS.values())


class OptimizerConfig(_Config):
    """The optimizer of theta.

    Attributes:
        name: PyTorch's "adamw" or "sgd" (momentum 0.9); "sam", "gsam" (sharpness-aware, see
            `services.training.optimizers.sharpness`, two gradients a step) or "cpr" (bounded norms, see `services.training.optimizers.cpr`), which
            are made of AdamW.
        lr: learning rate, at the start of its schedule.
        weight_decay: decoupled from the gradient (of SGD: added to it). "cpr" takes its place and has none unless
            it is given.
        schedule: of the learning rate, over the whole run.
        radius: of "sam" and "gsam": how far they look for a worse point.
        surrogate_gap: of "gsam": alpha, the weight of the gap.
        kappa_after: of "cpr": share of the steps after which the norms of that moment become the bounds kappa (the
            warm start; the authors give 1,000 steps for CIFAR-100).
        kappa_update: of "cpr": mu, how fast the multipliers follow.
    """

    name: Literal["adamw", "sgd", "sam", "gsam", "cpr"] = "adamw"
    lr: float = Field(default=1e-3, gt=0)
    weight_decay: float = Field(default=0.01, ge=0)
    schedule: Literal["cosine", "constant"] = "cosine"
    radius: float = Field(default=0.05, gt=0)
    surrogate_gap: float = Field(default=0.4, ge=0, le=1)
    kappa_after: float = Field(default=0.05, gt=0, lt=1)
    kappa_update: float = Field(default=1.0, gt=0)

    @model_validator(mode="before")
    @classmethod
    def _no_second_decay(cls, values: Any) -> Any:
        return {"weight_decay": 0.0, **values} if isinstance(values, dict) and values.get("name") == "cpr" else values

    def in_force(self) -> dict[str, Any]:
        """Return the settings that this optimizer reads."""
        return self.model_dump(exclude=_ALL_OPTIONS - _OPTIONS.get(self.name, set()))


class TrainConfig(_Config):
    """What is trained: everything that decides the result, given the number of workers.

    Attributes:
        model: a name of `crossreg.models.known()`, a torchvision model, or `package.module:function`.
        model_options: keyword arguments of the model.
        data: what to load and how to split it.
        method: "crossreg" learns the noise; "fixed" leaves it as `knobs` say; "none" trains without any.
        knobs: regularization settings by name, see `crossreg.regularizers.knobs`; e.g. `{"sigma/00_norm1": 0.5}`.
        noise: where noise goes.
        learn: what is learned beside noise, by its name in `crossreg.regularizers.registry.STARTS`, and the value it starts at; a
            list of names, or None for a value, takes the values there. They act on training alone, so the gradient is
            not "direct" but, if it is not chosen, "unrolled". With method "fixed" they stay where they start.
        rho: how it is learned.
        optimizer: of theta.
        epochs: passes over the training split; ignored where `steps` is given.
        steps: theta steps, instead of epochs.
        batch_size: examples in a step over all workers; None takes 128, or less for small data.
        augment: batched image augmentation of the training split.
        precision: of the forward and backward pass; the reduced ones use autocast.
        evaluations: how often the splits are evaluated in the whole run.
        evaluate_samples: noise draws of these.
        final_samples: noise draws of the last one, whose scores count.
        interim_test: test examples, evenly spaced, of all evaluations but the last; None takes all.
        final_test: take all of them and `final_samples` draws at the last; off for members of a search, of which one is
            chosen and then evaluated so.
        mc_dropout: evaluate with dropout on, averaged over as many draws (Gal & Ghahramani 2016); the model needs
            dropout layers, e.g. `model_options: {dropout: 0.2}`. Only scores are affected: a model that was exported
            or logged in MLflow predicts without dropout.
        seed: fixes the split, the weights, the order and every draw.
    """

    model: str = "cnn"
    model_options: dict[str, Any] = Field(default_factory=dict)
    data: DataConfig
    method: Literal["crossreg", "fixed", "none"] = "crossreg"
    knobs: dict[str, float] = Field(default_factory=dict)
    noise: NoiseConfig = NoiseConfig()
    learn: dict[str, float] = Field(default_factory=dict)
    rho: RhoConfig = RhoConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: int = Field(default=20, ge=1, le=_MOST)
    steps: int | None = Field(default=None, ge=1, le=_MOST)
    batch_size: int | None = Field(default=None, ge=1, le=_MOST)
    augment: Literal["none", "flip", "crop-flip"] = "none"
    precision: Literal["float32", "bfloat16", "float16"] = "float32"
    evaluations: int = Field(default=10, ge=1, le=_MOST)
    evaluate_samples: int = Field(default=3, ge=1, le=_MOST)
    final_samples: int = Field(default=16, ge=1, le=_MOST)
    interim_test: int | None = Field(default=None, ge=1, le=_MOST)
    final_test: bool = True
    mc_dropout: bool = False
    seed: int = Field(default=0, ge=0, lt=2**63)

    @property
    def noisy(self) -> bool:
        """Whether the model holds noise, learned or not."""
        return self.method != "none" and self.noise.on

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, values: Any) -> Any:
        # one seed for everything, unless the split is given its own
        if isinstance(values, dict) and isinstance(values.get("data"), dict) and "seed" in values:
            return {**values, "data": {"seed": values["seed"], **values["data"]}}
        return values

    @model_validator(mode="before")
    @classmethod
    def _starts(cls, values: Any) -> Any:
        if not isinstance(values, dict) or not values.get("learn"):
            return values
        given = values["learn"]
        if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
            given = dict.fromkeys(given)
        if not isinstance(given, dict) or not all(isinstance(name, str) for name in given):
            return values
        starts = {name: STARTS.get(name) if start is None else start for name, start in given.items()}
        check_names(starts)
        rho = values.get("rho", {})
        return {**values, "learn": starts, "rho": {"estimator": "unrolled", **rho} if isinstance(rho, dict) else rho}

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        if self.method == "crossreg" and not (self.noise.on or self.learn):
            raise ValueError("noise is off and nothing else is learned; use method 'none', or name what to `learn`")
        if self.method == "crossreg" and self.learn and self.rho.estimator == "direct":
            raise ValueError(
                f"the direct gradient cannot learn {', '.join(self.learn)}, which act on training alone; use "
                "rho.estimator 'implicit', 'unrolled' or 't1-t2'"
            )
        if self.method == "none" and self.learn:
            raise ValueError("method is 'none', which learns nothing; use 'crossreg', or 'fixed' for fixed values")
        if self.method == "crossreg" and self.data.reg_share == 0:
            raise ValueError(
                "reg_share is 0, but method 'crossreg' learns from a regularization split; use method 'none'"
            )
        if self.precision == "float16" and self.optimizer.name in ("sam", "gsam"):
            raise ValueError(
                f"precision is 'float16', but optimizer {self.optimizer.name!r} compares gradients, which float16 has "
                "to scale; use 'bfloat16' or 'float32'"
            )
        return self


class Placement(_Config):
    """Where and how a training runs; none of it changes what is trained but the number of workers.

    Attributes:
        workers: Ray Train workers, which train together in DDP.
        min_workers: go on with so few where a cluster has no room for all, and with more once it has; None waits.
        gpu: one GPU a worker.
        storage_path: where checkpoints go: a local folder or any URI that pyarrow or fsspec opens (`s3://...`).
            Default: `CROSSREG_STORAGE_PATH`, else `./runs`.
        checkpoint_every: theta steps between checkpoints; None takes a tenth of the run, within 50 to 1,000.
        max_failures: worker failures survived before the run fails.
        hang_timeout: seconds without a step after which a worker counts as lost.
        verbose: show Ray's own messages.
    """

    workers: int = Field(default=1, ge=1, le=_MOST)
    min_workers: int | None = Field(default=None, ge=1, le=_MOST)
    gpu: bool = False
    storage_path: str = Field(
        default_factory=lambda: os.environ.get("CROSSREG_STORAGE_PATH") or str(Path("runs").resolve())
    )
    checkpoint_every: int | None = Field(default=None, ge=1, le=_MOST)
    max_failures: int = Field(default=3, ge=0, le=_MOST)
    hang_timeout: int = Field(default=600, ge=1, le=_MOST)
    verbose: bool = False

    @property
    def sizes(self) -> range:
        """How many workers may train together."""
        return range(self.min_workers or self.workers, self.workers + 1)

    @model_validator(mode="after")
    def _check(self) -> Placement:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}, but workers is {self.workers}; give at most that")
        return self
