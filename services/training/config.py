"""What is trained, and where it runs: two frozen objects, each validated when it is made.

Every field says for itself what it is, what it defaults to and whether it is a flag; `jobs.flags` makes the options of
the command line from that.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

from pydantic import ConfigDict, Field, field_validator, model_validator

from crossreg.services.data.config import DataConfig
from crossreg.services.settings import MOST, Flag, Settings
from crossreg.services.training.optimizer_config import OptimizerConfig

__all__ = ["OptimizerConfig", "Placement", "RegularizerConfig", "RhoConfig", "TrainConfig", "default_regularizers"]


class RegularizerConfig(Settings):
    """How a training uses one regularizer; further keys are its options, see `crossreg.regularizers.registry`."""

    model_config = ConfigDict(extra="allow")

    learn: bool = Field(default=True, description="Learned by gradients of held-out loss; if not, it stays.")
    start: float | None = Field(default=None, description="Where it starts if it is learned.")
    value: float | None = Field(default=None, description="What it is if it is not.")

    @property
    def initial(self) -> float | None:
        """Where it starts, or stays; None leaves it what the model makes it."""
        return self.start if self.learn else self.value

    @property
    def options(self) -> dict[str, Any]:
        """Its further settings."""
        return dict(self.model_extra or {})


class RhoConfig(Settings):
    """How rho is learned; see `crossreg.CrossRegularizer`."""

    interval: Annotated[int | None, Flag(default="30, less in runs of fewer than 480")] = Field(
        default=None, ge=1, le=MOST, description="Training steps between updates of what is learned."
    )
    samples: Annotated[int, Flag()] = Field(
        default=3, ge=1, le=MOST, description="Noise draws averaged in an update of what is learned."
    )
    lr: float = Field(default=0.1, gt=0, description="Step size of rho, in relative change of a value an update.")
    batch_size: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="Held-out examples in an update; None takes those of training, or up to 512 where augmentation is "
        "learned.",
    )
    estimator: Annotated[
        Literal["direct", "t1-t2", "unrolled", "implicit"] | None,
        Flag(default="direct, or unrolled where something learned acts on training alone"),
    ] = Field(
        default=None, description="How the gradient by which it learns is estimated; see docs/method/estimators.md."
    )
    unroll_steps: int = Field(default=1, ge=1, le=MOST, description="Of unrolled: steps of theta that are followed.")
    neumann_terms: int = Field(default=10, ge=1, le=MOST, description="Of implicit: terms of the series.")


BY_DATA = "by data"
"""The model that is chosen when the data are known."""


def schedule_is_given(training: Mapping[str, Any]) -> bool:
    """Say whether a training, as it is written in flags or a file, has a schedule and so a length of its own."""
    optimizer = training.get("optimizer") or {}
    schedule = optimizer.get("schedule") if isinstance(optimizer, Mapping) else getattr(optimizer, "schedule", None)
    return schedule in ("cosine", "constant")


def default_regularizers(training: Mapping[str, Any], *, none: bool = False) -> dict[str, Any]:
    """Return the section `regularizers` that is meant where it is left out.

    Held-out data that do not decide how long to train have noise and a temperature to decide.

    Args:
        training: as it is written in flags or a file.
        none: `none` is said, which takes away even the dropout that is there if nothing is.
    """
    given = schedule_is_given(training)
    if none:
        return {} if given else {"dropout": 0}
    return {"noise": {}, "temperature": {}} if given else {}


class TrainConfig(Settings):
    """What is trained: everything that decides the result, given the number of workers."""

    model: Annotated[str, Flag(default="cnn for images, cnn1d for sequences, else mlp")] = Field(
        default=BY_DATA,
        description="mlp, cnn, cnn1d, lstm, gru, transformer, vgg16, resnet18/34/50, wide_resnet, any torchvision "
        "classifier, or package.module:function of your own.",
    )
    model_options: dict[str, Any] = Field(default_factory=dict, description="Keyword arguments of the model.")
    init_from: Annotated[str | None, Flag(default="fresh weights", text="FILE")] = Field(
        default=None,
        description="Start from the weights of a file (fine-tuning): safetensors or a state dict. The last layer is a "
        "fresh one where its number of outputs differs.",
    )
    freeze: Annotated[tuple[str, ...], Flag(default="none", text="PATTERN,...")] = Field(
        default=(),
        description="Weights that stay as they are, by shell-style patterns of their names or of modules (layer1); so "
        "do statistics of their layers.",
    )
    ensemble: Annotated[
        int | None, Flag(default="4, 8 that share weights, or 1 where the schedule is given", text="M|NAME,...")
    ] = Field(
        default=None,
        ge=1,
        le=100,
        description="Networks trained side by side, each on its share of every batch, which predict as one model: how "
        "many, or which, as lstm,cnn1d.",
    )
    ensemble_style: Annotated[
        Literal["independent", "shared"] | None, Flag(default="shared for `mlp` on tables where the length is found")
    ] = Field(
        default=None,
        description="independent networks, or shared: `mlp`s with one set of weights that each scales in its own way.",
    )
    data: DataConfig
    regularizers: dict[str, RegularizerConfig] = Field(
        default_factory=dict,
        description="All that regularizes, by its name in `crossreg.regularizers.registry`, learned or fixed. By "
        "default dropout 0.1 where the model has a place for it, or, where the schedule is given, learned noise.",
    )
    rho: RhoConfig = RhoConfig()
    optimizer: OptimizerConfig = OptimizerConfig()
    epochs: Annotated[int | None, Flag(default="40, or 20 where the schedule is given")] = Field(
        default=None,
        ge=1,
        le=MOST,
        description="Passes over the training split, which the networks of an ensemble share; at most so many where "
        "the schedule is found. Ignored where steps are given.",
    )
    steps: Annotated[int | None, Flag(default="those of --epochs")] = Field(
        default=None, ge=1, le=MOST, description="Training steps, instead of epochs."
    )
    budget: Annotated[str | None, Flag(default="40 epochs")] = Field(
        default=None,
        description="Most that a run may cost that finds its length: time of training (90s, 5m, 2h), operations "
        "(1e15flops) or a share of a search of 16 trainings (0.1search). In place of --epochs, or beside them.",
    )
    usual_steps: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="How long such a run usually is, where a budget alone bounds it; set when the rest is resolved.",
    )
    stopping: dict[str, float] = Field(
        default_factory=dict,
        description="A rule that may end the training earlier, see `crossreg.training.stopping`: `{patience: 5}`.",
    )
    batch_size: Annotated[int | None, Flag(default="32 to 128 a network, by the size of the data")] = Field(
        default=None, ge=1, le=MOST, description="Examples in a step over all workers."
    )
    augment: Annotated[Literal["none", "flip", "crop-flip"], Flag()] = Field(
        default="none", description="Fixed augmentation of training images."
    )
    precision: Annotated[Literal["float32", "bfloat16", "float16"], Flag()] = Field(
        default="float32", description="Of the forward and backward pass; the reduced ones use autocast."
    )
    evaluations: int = Field(
        default=10, ge=1, le=MOST, description="How often the splits are evaluated in the whole run."
    )
    evaluate_samples: int = Field(default=3, ge=1, le=MOST, description="Noise draws of these evaluations.")
    final_samples: int = Field(
        default=16, ge=1, le=MOST, description="Noise draws of the last one, whose scores count."
    )
    interim_test: int | None = Field(
        default=None,
        ge=1,
        le=MOST,
        description="Test examples, evenly spaced, of all evaluations but the last; None takes all.",
    )
    final_test: bool = Field(
        default=True,
        description="Take all test examples and `final_samples` draws at the last evaluation; off for members of a "
        "search, of which one is chosen and then evaluated so.",
    )
    mc_dropout: bool = Field(
        default=False,
        description="Evaluate with dropout on, averaged over as many draws (Gal and Ghahramani 2016). Only scores are "
        "affected: an exported model predicts without dropout.",
    )
    seed: Annotated[int, Flag()] = Field(
        default=0, ge=0, lt=2**63, description="Fixes split, weights, order and every draw."
    )

    @field_validator("init_from")
    @classmethod
    def _absolute(cls, path: str | None) -> str | None:
        return path and str(Path(path).expanduser().absolute())  # workers have other working directories

    @property
    def finds_length(self) -> bool:
        """Whether the length is an upper bound; see `crossreg.training.course`."""
        return self.optimizer.schedule == "found"

    @property
    def learned(self) -> list[str]:
        """What is learned, by name; one with a part says it for that part alone."""
        return [name for name, one in self.regularizers.items() if one.learn]

    @property
    def method(self) -> str:
        """What a run is called by: "crossreg" if held-out data decide, else "fixed" or, without a rho, "none"."""
        from crossreg.regularizers.registry import description

        if self.learned or self.finds_length:
            return "crossreg"
        return "fixed" if any(description(name).learned_by_rho for name in self.regularizers) else "none"

    @model_validator(mode="before")
    @classmethod
    def _one_seed(cls, values: Any) -> Any:
        # one seed for everything, unless the split is given its own
        if isinstance(values, dict) and isinstance(values.get("data"), dict) and "seed" in values:
            return {**values, "data": {"seed": values["seed"], **values["data"]}}
        return values

    @model_validator(mode="before")
    @classmethod
    def _networks(cls, values: Any) -> Any:
        """Read networks that are named one by one: `model` holds their names, `ensemble` how many they are."""
        if not isinstance(values, dict):
            return values
        given, model = values.get("ensemble"), values.get("model", BY_DATA)
        if isinstance(given, str):
            given = int(given) if given.strip().isdigit() else given.split(",")
        if isinstance(given, list | tuple):
            if len(given) < 2 or not all(isinstance(name, str) and name.strip() for name in given):
                raise ValueError(
                    f"ensemble is {given!r}; it is a number of networks, or the names of two and more, as lstm,cnn1d"
                )
            names = ",".join(name.strip() for name in given)
            if model not in (BY_DATA, names):
                raise ValueError(f"ensemble names networks, {names}, and model is {model}; leave one out")
            return {**values, "model": names, "ensemble": names.count(",") + 1}
        if given is None and isinstance(model, str) and "," in model:
            given = model.count(",") + 1
        return values if given is None else {**values, "ensemble": given}

    @model_validator(mode="before")
    @classmethod
    def _by_schedule(cls, values: Any) -> Any:
        if not isinstance(values, dict):
            return values
        given = values.get("regularizers", default_regularizers(values))
        if given is None or given == "none":
            given = default_regularizers(values, none=True)
        elif isinstance(given, Mapping) and given.get("dropout") is False and not schedule_is_given(values):
            given = {**given, "dropout": 0}
        return {**values, "regularizers": given}

    @field_validator("regularizers", mode="before")
    @classmethod
    def _written_out(cls, given: Any) -> Any:
        if given is None or given == "none":
            return {}
        if isinstance(given, list | tuple) and all(isinstance(name, str) for name in given):
            given = dict.fromkeys(given)
        if not isinstance(given, Mapping) or not all(isinstance(name, str) for name in given):
            raise ValueError(
                "it names regularizers with their settings, e.g. {noise: {learn: true}, l2: {start: 1e-4}}, or none"
            )
        kept = {name: one for name, one in given.items() if not _left_out(name, one)}
        return {name: _written_out(name, one, set(kept)) for name, one in kept.items()}

    @field_validator("budget")
    @classmethod
    def _readable(cls, given: str | None) -> str | None:
        from crossreg.services.training.budget import parse_budget

        if given is not None:
            parse_budget(given)
        return given

    @field_validator("stopping")
    @classmethod
    def _one_rule(cls, given: dict[str, float]) -> dict[str, float]:
        from crossreg.training.rules import stopping_rule

        stopping_rule(given)
        return given

    @model_validator(mode="after")
    def _check(self) -> TrainConfig:
        from crossreg.regularizers.registry import description
        from crossreg.services.training.optimizers import optimizer_kind

        stuck = [name for name in self.learned if not description(name).direct]
        if stuck and self.rho.estimator == "direct":
            raise ValueError(
                f"the direct gradient cannot learn {', '.join(stuck)}: with the weights held fixed the held-out loss "
                "does not depend on it; use rho.estimator 'unrolled', 'implicit' or 't1-t2'"
            )
        if self.learned and self.data.reg_share == 0:
            raise ValueError(
                f"reg_share is 0, but {', '.join(self.learned)} are learned from a regularization split; learn nothing "
                "(--learn none), or hold something out"
            )
        kind = optimizer_kind(self.optimizer.name)
        if self.precision == "float16" and kind.gradient_evaluations > 1:
            raise ValueError(
                f"precision is 'float16', but optimizer {self.optimizer.name!r} compares gradients, which float16 has "
                "to scale; use 'bfloat16' or 'float32'"
            )
        if self.finds_length and self.stopping:
            raise ValueError("schedule 'found' decides when to stop; leave out stopping, or use schedule 'cosine'")
        if self.budget is not None and not self.finds_length:
            raise ValueError(
                f"budget is {self.budget!r}, but schedule {self.optimizer.schedule!r} has a length that is given; use "
                "--epochs or --steps, or schedule 'found'"
            )
        own = self.regularizers.get("temperature")
        if self.finds_length and own is not None and not own.learn and own.value != 1:
            raise ValueError(
                f"temperature is fixed at {own.value:g}, but schedule 'found' fits it at the end; leave it out, or use "
                "schedule 'cosine'"
            )
        if self.finds_length and self.data.reg_share == 0:
            raise ValueError(
                "reg_share is 0, but schedule 'found' judges by the regularization split; hold something out, or use "
                "schedule 'cosine'"
            )
        if self.stopping and self.data.reg_share == 0:
            raise ValueError("reg_share is 0, but stopping looks at the regularization split; hold something out")
        return self


def _left_out(name: str, given: Any) -> bool:
    """Say whether a regularizer is off: `false`, or fixed at 0 where 0 is no value that it could have."""
    from crossreg.regularizers.registry import description

    if given is False or isinstance(given, bool) or given is None:
        return given is False
    value = given.get("value") if isinstance(given, Mapping) and given.get("learn") is not True else given
    one = description(name)
    return value in (0, "0", "0.0") and one.scale != "linear" and one.learned_by_rho


def _written_out(name: str, given: Any, names: set[str]) -> dict[str, Any]:
    """Return the settings of a regularizer with nothing left open.

    Raises:
        UserError: an unknown name, option or value, or settings that contradict one another.
    """
    from crossreg.core.errors import UserError, nearest, quoted
    from crossreg.regularizers.registry import regularizer

    entry, (base, _, part) = regularizer(name), name.partition("/")
    if part and base not in names:
        raise UserError(f"{name} is a part of {base}, which this training does not have; name {base} too")
    if isinstance(given, RegularizerConfig):
        given = given.model_dump(exclude_none=True)
    if given is None or given is True:
        given = {}
    if isinstance(given, int | float):
        given = {"value": given}
    if not isinstance(given, Mapping):
        raise UserError(
            f"{name} is {quoted(given)}; give settings such as {{start: 0.1}}, a number that it stays at, or off"
        )
    said = {key: value for key, value in given.items() if value is not None}
    described = entry.hyperparameter
    learn = said.pop("learn", described.learned_by_rho and "value" not in said)
    if not isinstance(learn, bool):
        raise UserError(f"{name}.learn is {quoted(learn)}; it is true or false")
    if learn and not described.learned_by_rho:
        raise UserError(f"{name} has no gradient that it could be learned by; fix it: {name}: {{value: ...}}")
    key, other = ("start", "value") if learn else ("value", "start")
    if other in said:
        raise UserError(f"{name} is {'learned' if learn else 'fixed'}, so its {key} is what can be given, not {other}")
    options = {name: one for name, one in said.items() if name not in ("start", "value")}
    value = said.pop(key, None if part else entry.default(options))
    if isinstance(value, str):  # a flag's text
        try:
            value = float(value)
        except ValueError:
            raise UserError(f"{name} is {quoted(value)}; it must be a number ({described.unit})") from None
    if value is not None:
        described.check(value)
    if part and said:
        raise UserError(f"{name} is a part, and takes no {', '.join(said)}; give them to {base}")
    if unknown := next((option for option in said if option not in entry.options), None):
        allowed = ["learn", "start", "value", *entry.options]
        raise UserError(
            f"{name} has no setting {quoted(unknown)}{nearest(unknown, allowed)}; allowed are {', '.join(allowed)}"
        )
    entry.check_options(said)
    return {"learn": learn, key: value, **said}


class Placement(Settings):
    """Where and how a training runs; none of it changes what is trained but the number of workers."""

    workers: Annotated[int, Flag()] = Field(
        default=1,
        ge=0,
        le=MOST,
        description="Ray Train workers, which train together in DDP; 0 trains in this process, without Ray.",
    )
    min_workers: Annotated[int | None, Flag(default="wait for all")] = Field(
        default=None,
        ge=1,
        le=MOST,
        description="Go on with so few while a cluster has no room for all, and with more once it has.",
    )
    gpu: Annotated[bool, Flag()] = Field(default=False, description="One GPU a worker.")
    storage_path: Annotated[str, Flag(default="CROSSREG_STORAGE_PATH, else ./runs")] = Field(
        default_factory=lambda: os.environ.get("CROSSREG_STORAGE_PATH") or str(Path("runs").resolve()),
        description="Checkpoints go here: a folder, or any URI that pyarrow or fsspec opens (s3://...).",
    )
    checkpoint_every: Annotated[int | None, Flag(default="a tenth of the run, within 50 to 1,000")] = Field(
        default=None, ge=1, le=MOST, description="Training steps between checkpoints."
    )
    max_failures: Annotated[int, Flag()] = Field(
        default=3, ge=0, le=MOST, description="Worker failures survived before the run fails."
    )
    hang_timeout: Annotated[int, Flag()] = Field(
        default=600, ge=1, le=MOST, description="Seconds without a step until a worker counts as lost."
    )
    verbose: Annotated[bool, Flag()] = Field(default=False, description="Show Ray's and MLflow's own messages.")

    @property
    def sizes(self) -> range:
        """How many processes may train together."""
        most = max(self.workers, 1)
        return range(self.min_workers or most, most + 1)

    @model_validator(mode="after")
    def _check(self) -> Placement:
        if self.min_workers is not None and self.min_workers > self.workers:
            raise ValueError(f"min_workers is {self.min_workers}, but workers is {self.workers}; give at most that")
        return self
