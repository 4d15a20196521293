"""Flags that several commands share, each defined once."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import typer

from jobs.options import merge, nest, read_yaml, section
from services.data import known

__all__ = [
    "PLACEMENT",
    "TRACKING",
    "TRAINING",
    "AsJson",
    "Augment",
    "BatchSize",
    "ConfigFile",
    "Data",
    "DataRoot",
    "Download",
    "Epochs",
    "Estimator",
    "Experiment",
    "Gpu",
    "Granularity",
    "InitialSigma",
    "Interval",
    "Learn",
    "LearningRate",
    "Limit",
    "MaxFailures",
    "Model",
    "Noise",
    "Optimizer",
    "Precision",
    "RegShare",
    "Samples",
    "Seed",
    "Steps",
    "StoragePath",
    "Target",
    "TrackingUri",
    "Verbose",
    "WeightDecay",
    "settings",
]

WHAT, RHO, WHERE, OUT = "What to train", "Learned regularization", "Where to run", "Tracking and output"

_MODELS = "mlp, cnn, vgg16, resnet18/34/50, wide_resnet, any torchvision classifier, or package.module:function"

Model = Annotated[str | None, typer.Option(help=f"{_MODELS}. Default: cnn.", rich_help_panel=WHAT)]
Data = Annotated[
    str | None,
    typer.Option(
        help=f"{', '.join(known())}, or a path: image folder, .npz, .npy, .csv, .parquet.", rich_help_panel=WHAT
    ),
]
Epochs = Annotated[int | None, typer.Option(help="Passes over the training split. Default: 20.", rich_help_panel=WHAT)]
Steps = Annotated[int | None, typer.Option(help="Training steps, instead of epochs.", rich_help_panel=WHAT)]
BatchSize = Annotated[
    int | None,
    typer.Option(help="Examples in a step over all workers. Default: 128, less for small data.", rich_help_panel=WHAT),
]
LearningRate = Annotated[
    float | None, typer.Option(help="Learning rate of the weights. Default: 0.001.", rich_help_panel=WHAT)
]
Optimizer = Annotated[
    str | None, typer.Option(help="adamw (default), sgd, sam, gsam or cpr; see docs/train.md.", rich_help_panel=WHAT)
]
WeightDecay = Annotated[float | None, typer.Option(help="Default: 0.01; cpr has none.", rich_help_panel=WHAT)]
Augment = Annotated[str | None, typer.Option(help="none (default), flip or crop-flip.", rich_help_panel=WHAT)]
Precision = Annotated[str | None, typer.Option(help="float32 (default), bfloat16 or float16.", rich_help_panel=WHAT)]
Seed = Annotated[
    int | None, typer.Option(help="Fixes split, weights, order and noise. Default: 0.", rich_help_panel=WHAT)
]
DataRoot = Annotated[
    Path | None, typer.Option(help="Folder of torchvision's datasets. Default: ./data.", rich_help_panel=WHAT)
]
Download = Annotated[
    bool | None, typer.Option("--download", help="Fetch a missing torchvision dataset.", rich_help_panel=WHAT)
]
Limit = Annotated[int | None, typer.Option(help="Use only so many training examples.", rich_help_panel=WHAT)]
Target = Annotated[str | None, typer.Option(help="Target column of a table.", rich_help_panel=WHAT)]
RegShare = Annotated[
    float | None,
    typer.Option(help="Share of the training data held out for rho. Default: 10 %.", rich_help_panel=RHO),
]
Granularity = Annotated[str | None, typer.Option(help="One sigma a layer (default) or a unit.", rich_help_panel=RHO)]
InitialSigma = Annotated[float | None, typer.Option(help="Where every sigma starts.", rich_help_panel=RHO)]
Noise = Annotated[
    bool | None,
    typer.Option("--noise/--no-noise", help="Noise after normalization layers. Default: yes.", rich_help_panel=RHO),
]
LEARNABLE = (
    "l2, l1, label-smoothing, loss-temperature, shift, rotation, shear, scale, brightness, contrast, input-noise"
)
Learn = Annotated[
    list[str] | None,
    typer.Option(help=f"Learn this too, NAME or NAME=START; may be repeated: {LEARNABLE}.", rich_help_panel=RHO),
]
Estimator = Annotated[
    str | None,
    typer.Option(
        help="Gradient of rho: direct, t1-t2, unrolled, implicit. Default: direct, with --learn unrolled.",
        rich_help_panel=RHO,
    ),
]
Interval = Annotated[
    int | None,
    typer.Option(
        help="Training steps between updates of rho. Default: 30, less in runs of fewer than 480.", rich_help_panel=RHO
    ),
]
Samples = Annotated[
    int | None, typer.Option(help="Noise draws averaged in an update of rho. Default: 3.", rich_help_panel=RHO)
]
Gpu = Annotated[bool | None, typer.Option("--gpu", help="One GPU a worker.", rich_help_panel=WHERE)]
StoragePath = Annotated[
    str | None,
    typer.Option(help="Checkpoints go here: a folder or a URI (s3://...). Default: ./runs.", rich_help_panel=WHERE),
]
MaxFailures = Annotated[int | None, typer.Option(help="Lost workers survived. Default: 3.", rich_help_panel=WHERE)]
TrackingUri = Annotated[
    str | None,
    typer.Option(help="MLflow store or server. Default: sqlite:///mlflow.db here.", rich_help_panel=OUT),
]
Experiment = Annotated[
    str | None, typer.Option(help="MLflow experiment. Default: <data>-<model>.", rich_help_panel=OUT)
]
ConfigFile = Annotated[Path | None, typer.Option(help="YAML file of settings; flags win over it.", rich_help_panel=OUT)]
Address = Annotated[
    str | None,
    typer.Option(
        help="The cluster's dashboard, http://host:8265. Default: RAY_API_SERVER_ADDRESS, else this machine's.",
    ),
]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=OUT)]
Verbose = Annotated[
    bool | None, typer.Option("--verbose", help="Show Ray's and MLflow's own messages.", rich_help_panel=OUT)
]

TRAINING = {
    "model": "model",
    "data": "data.name",
    "data_root": "data.root",
    "download": "data.download",
    "limit": "data.limit",
    "target": "data.target",
    "reg_share": "data.reg_share",
    "method": "method",
    "granularity": "noise.granularity",
    "initial_sigma": "noise.initial_sigma",
    "noise": "noise.on",
    "learn": "learn",
    "estimator": "rho.estimator",
    "interval": "rho.interval",
    "samples": "rho.samples",
    "optimizer": "optimizer.name",
    "lr": "optimizer.lr",
    "weight_decay": "optimizer.weight_decay",
    **{name: name for name in ("epochs", "steps", "batch_size", "augment", "precision", "seed")},
}
"""Which setting of `TrainConfig` each flag fills."""

PLACEMENT = {
    name: name
    for name in (
        "workers", "min_workers", "gpu", "storage_path", "checkpoint_every", "max_failures", "hang_timeout", "verbose",
    )
}  # fmt: skip
"""Which setting of `Placement` each flag fills."""

TRACKING = {"tracking_uri": "uri", "experiment": "experiment"}
"""Which setting of `TrackingConfig` each flag fills."""


def _starts(given: list[str] | None) -> dict[str, str | None] | None:
    """Return `{"l2": None, "shift": "2"}` for `["l2", "shift=2"]`, with underscores in names."""
    pairs = (text.partition("=") for text in given or ())
    return {name.replace("-", "_"): start or None for name, _, start in pairs} or None


Settings = tuple[dict[str, Any], dict[str, Any], dict[str, Any]]


def settings(given: Mapping[str, Any], file: Path | None) -> Settings:
    """Return settings of training, placement and tracking from flags, and from a file where flags leave them open.

    Args:
        given: the flags of a command by parameter name; None where not given.
        file: YAML with the settings of `TrainConfig` at its top and sections `placement` and `tracking`.

    Raises:
        UserError: a file that cannot be read, or a section that is none.
    """
    given = {**given, "learn": _starts(given.get("learn"))}
    what, where, tracked = (
        nest({path: given.get(flag) for flag, path in table.items()}) for table in (TRAINING, PLACEMENT, TRACKING)
    )
    if file is None:
        return what, where, tracked
    content = read_yaml(file)
    where = merge(section(content, "placement"), where)
    tracked = merge(section(content, "tracking"), tracked)
    if isinstance(content.get("data"), str):
        content["data"] = {"name": content["data"]}
    sections = {name: section(content, name) for name in ("data", "noise", "rho", "optimizer")}
    return merge(content | sections, what), where, tracked
