"""What learned optimizers are made of and tried on."""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch

from crossreg.meta import MetaPlan, MetaTask, build_small, meta_loss

if TYPE_CHECKING:
    from crossreg.services.data import DataConfig

__all__ = ["HORIZON", "SCALES", "SEEN", "SETTINGS", "Scale", "Setting", "plan_of", "prepare", "task_of"]

HORIZON = 200
"""Steps of the longest trainings that rules are meta-trained on."""
_MOST_TRAIN, _MOST_TEST = 4_000, 2_000
_VALIDATION = 0.2
BATCH = 64


@dataclass(frozen=True)
class Setting:
    """A network on data.

    Attributes:
        data: "digits", "mnist", "fashion-mnist" or "cifar10".
        network: one of `crossreg.meta.NETWORKS`.
    """

    data: str
    network: str

    @property
    def name(self) -> str:
        """As tables have it."""
        return f"{self.data}, {self.network}"


SEEN = Setting("digits", "mlp-relu")
SETTINGS = (
    SEEN,
    Setting("digits", "mlp-sigmoid"),
    Setting("digits", "cnn-norm"),
    Setting("mnist", "mlp-relu"),
    Setting("fashion-mnist", "mlp-relu"),
    Setting("cifar10", "mlp-relu"),
)
"""The one that rules are meta-trained on, other networks, other data."""


@dataclass(frozen=True)
class Scale:
    """How much is measured.

    Attributes:
        losses: meta-losses by update rule.
        settings: what rules are tried on.
        inner: seeds of each training.
        iterations: of meta-training, by update rule.
        longest: largest multiple of the horizon, on the seen setting.
    """

    losses: dict[str, tuple[str, ...]]
    settings: tuple[Setting, ...]
    inner: int
    iterations: dict[str, int]
    longest: int


_LOSSES = ("train", "held-out", "sam", "gsam", "gam")
SCALES = {
    "small": Scale({"mlp": ("train", "held-out", "sam")}, (SEEN, SETTINGS[2], SETTINGS[4]), 3, {"mlp": 150}, 10),
    "full": Scale({"mlp": _LOSSES, "lstm": _LOSSES}, SETTINGS, 5, {"mlp": 300, "lstm": 400}, 10),
}


def plan_of(rule: str, loss: str, seed: int, iterations: int) -> MetaPlan:
    """Return how a rule is meta-trained: the LSTM as its lineage has it, the small network as it turned out best.

    Source: truncated backpropagation through twenty steps, no second derivatives and a learning rate of 1e-3 are
    Open-L2O's (L2O-DM), the nearest public code; arXiv:2510.08968 gives none of it.
    """
    shared = MetaPlan(meta_loss(loss), horizon=HORIZON, iterations=iterations, inner_lr=0.01, seed=seed)
    if rule == "lstm":
        return replace(shared, lr=1e-3)
    return replace(shared, estimator="nres", emphasis=2.0)


def data_file(root: Path) -> Path:
    """Return where the data of all settings are, or will be."""
    return root / "learned-optimizer" / "data.npz"


def prepare(where: DataConfig) -> None:
    """Write the data of all settings, standardized, unless they are there.

    Args:
        where: says where torchvision's datasets lie, and whether a missing one is downloaded.

    Raises:
        UserError: one is not there.
    """
    path = data_file(where.root)
    if path.exists():
        return
    found: dict[str, np.ndarray] = {}
    for name in dict.fromkeys(setting.data for setting in SETTINGS):
        arrays = _digits() if name == "digits" else _images(name, where)
        found |= {f"{name}/{key}": value for key, value in zip(("x", "y", "x_test", "y_test"), arrays, strict=True)}
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f"draft-{path.name}")
    np.savez_compressed(draft, **found)  # type: ignore[arg-type]  # NumPy's stubs take keywords for its own options
    draft.replace(path)


def _digits() -> tuple[np.ndarray, ...]:
    from crossreg.services.data import DataConfig, load_data

    data = load_data(DataConfig(name="digits", seed=0))
    x, y = (np.concatenate(parts) for parts in ((data.train.x, data.reg.x), (data.train.y, data.reg.y)))
    return _standardized(x, y, data.test.x, data.test.y)


def _images(name: str, where: DataConfig) -> tuple[np.ndarray, ...]:
    """Return the first images of torchvision's, or of a folder beside them where those are not there."""
    from crossreg.services.data import DataConfig, load_data
    from crossreg.services.data.vision import load_vision

    folder = {"mnist": "mnist10k", "cifar10": "cifar10"}.get(name, "")
    if folder and (where.root / folder / "train").is_dir():
        data = load_data(DataConfig(name=str(where.root / folder), seed=0))
        x, y = (np.concatenate(parts) for parts in ((data.train.x, data.reg.x), (data.train.y, data.reg.y)))
        return _standardized(x, y, data.test.x, data.test.y)
    raw = load_vision(name, where.root, download=where.download)
    return _standardized(*(np.asarray(part) for part in (raw.x, raw.y, raw.x_test, raw.y_test)))


def _standardized(x: np.ndarray, y: np.ndarray, x_test: np.ndarray, y_test: np.ndarray) -> tuple[np.ndarray, ...]:
    generator = np.random.default_rng(0)
    few, few_test = generator.permutation(len(x))[:_MOST_TRAIN], generator.permutation(len(x_test))[:_MOST_TEST]
    x, x_test = x[few].astype("float32"), x_test[few_test].astype("float32")
    mean, deviation = x.mean(), x.std()
    return (x - mean) / deviation, y[few].astype("int64"), (x_test - mean) / deviation, y_test[few_test].astype("int64")


@dataclass(frozen=True, eq=False)
class Examples:
    """The examples of a setting on a device, in three parts: to train on, to choose by, to report."""

    x: torch.Tensor
    y: torch.Tensor
    x_val: torch.Tensor
    y_val: torch.Tensor
    x_test: torch.Tensor
    y_test: torch.Tensor


def examples(data: str, path: Path, device: torch.device) -> Examples:
    """Return the examples of a setting's data."""
    with np.load(path) as file:
        x, y, x_test, y_test = (
            torch.from_numpy(file[f"{data}/{key}"]).to(device) for key in ("x", "y", "x_test", "y_test")
        )
    cut = round((1 - _VALIDATION) * len(x))
    return Examples(x[:cut], y[:cut], x[cut:], y[cut:], x_test, y_test)


def task_of(setting: Setting, given: Examples) -> MetaTask:
    """Return the task of a setting: its network on its training examples."""
    build = partial(build_small, setting.network, tuple(given.x.shape[1:]), 10)
    return MetaTask.of(setting.name, build, given.x, given.y, batch_size=BATCH)
