"""What MLflow, the log and the console are told about a training: its name, parameters, note and command line."""

from __future__ import annotations

import hashlib
import shlex
import sys
from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from crossreg.inputs import Array
from crossreg.models import is_custom
from crossreg.regularizers.registry import get_hyperparameters
from crossreg.services.data import Dataset
from crossreg.services.tracking import redact
from crossreg.services.training.assemble import build_model, takes_integers
from crossreg.services.training.config import Placement, RegularizerConfig, TrainConfig
from crossreg.services.training.linear import NEARLY_ALL, explained_linearly
from crossreg.services.training.resolve import ResolvedConfig

__all__ = ["command", "in_short", "note", "params", "regularized_by", "slug", "starting_values", "taken_as_is"]


def params(config: ResolvedConfig, placement: Placement, data: Dataset) -> dict[str, Any]:
    """Return what MLflow shows as the run's parameters."""
    splits = {name: len(split) for name, split in (("train", data.train_y), ("reg", data.reg), ("test", data.test))}
    return {
        **config.model_dump(mode="json", exclude_none=True),
        "workers": placement.workers,
        "num_examples": splits,
    }


def in_short(config: ResolvedConfig, placement: Placement, data: Dataset) -> dict[str, Any]:
    """Return what the log says of the run; equal configurations have equal fingerprints."""
    settings = config.model_dump_json()
    return {
        "experiment": slug(config),
        "method": config.method,
        "seed": config.seed,
        "config_fingerprint": hashlib.sha256(settings.encode()).hexdigest()[:16],
        "data_fingerprint": data.fingerprint,
        "workers": placement.workers,
    }


def note(config: TrainConfig, data: Dataset) -> str:
    """Return the run's description, in Markdown."""
    return (
        f"**{config.method}** training of `{config.model}` on `{data.name}` "
        f"({data.num_train:,} train, {len(data.reg):,} reg, {len(data.test):,} test examples), seed {config.seed}; "
        f"{regularized_by(config)}.\n\n"
        f"    {command()}"
    )


def regularized_by(config: TrainConfig) -> str:
    """Return in a line what is learned, from where on, and what stays at which value."""

    def number(name: str, one: RegularizerConfig) -> str:
        return name if one.initial is None else f"{name} {one.initial:g}"

    learned = [number(name, one) for name, one in config.regularizers.items() if one.learn]
    fixed = [number(name, one) for name, one in config.regularizers.items() if not one.learn]
    networks = f", {config.ensemble} networks" if config.finds_length and (config.ensemble or 1) > 1 else ""
    if config.finds_length:
        learned = ["how long to train", *learned]
        fixed = [one for one in fixed if one != "temperature 1"]  # it is fitted at the end
    parts = [f"learns {', '.join(learned)}{networks}" if learned else "learns nothing"]
    return "; ".join(parts + ([f"fixed: {', '.join(fixed)}"] if fixed else []))


def starting_values(
    config: ResolvedConfig, data: Dataset, names: Collection[str], state: Mapping[str, Any] | None = None
) -> dict[str, float]:
    """Return what hyperparameters were before they were learned.

    Args:
        config: the training.
        data: on what.
        names: of those that are asked for.
        state: of a checkpoint that it started from.
    """
    if not names:
        return {}
    # as a worker builds it: where nothing is said, the model decides where they start
    model = build_model(config, data)
    if state is not None:
        model.load_state_dict(state["model"])
    return {name: value for name, value in get_hyperparameters(model).items() if name in names}


_ONE_NETWORK = "; with so little noise one network, at a low learning rate, is the default"


def taken_as_is(config: TrainConfig, data: Dataset) -> list[str]:
    """Say in a line each what a model is given that nobody asked for: inputs as they are, a dropout."""
    said = []
    explained = explained_linearly(data) if config.model_options.get("linear_skip") and config.model == "mlp" else None
    if explained is not None:
        one = config.finds_length and explained >= NEARLY_ALL
        said.append(
            f"note: the network starts from ridge regression, which explains {explained:.1%} of the target's variance "
            f"and predicts better than boosted trees (cross-validation){_ONE_NETWORK if one else ''}; "
            "model_options: {linear_skip: false} is without"
        )
    if is_custom(config.model) and config.finds_length and "dropout" in config.model_options:
        rate = config.model_options["dropout"]
        said.append(f"note: {config.model} is called with dropout={rate:g}; model_options: {{dropout: 0}} is without")
    if takes_integers(data, config.model):
        said.append(
            f"note: inputs are whole numbers, and {config.model} gets them as they are; floats are standardized"
        )
    elif data.train.x.dtype == "int64" and len(data.input_shape) == 1 and isinstance(data.inputs, Array):
        said.append(
            "note: inputs are whole numbers, taken as quantities; a model of your own (package.module:function) gets "
            "them as they are, as tokens"
        )
    elif not data.standardized:
        said.append("note: inputs are not standardized (--raw)")
    return said


def command() -> str:
    """Return the command that the user typed, without the passwords of its URIs."""
    by_name = Path(sys.argv[0]).name == "crossreg"
    typed = ["crossreg", *sys.argv[1:]] if by_name else ["python", *sys.orig_argv[1:]]
    return redact(shlex.join(typed))


def slug(config: TrainConfig) -> str:
    """Return the experiment's name, `<data>-<model>`, free of path separators."""
    model = config.model.replace(":", "_").replace(",", "+")
    return f"{Path(config.data.name).stem}-{model}".replace("/", "_").replace(":", "_")
