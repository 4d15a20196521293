"""Pictures with something planted in them, and the training of a small network with augmentation."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from itertools import count
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg import (
    T1T2,
    Batches,
    CrossRegularizer,
    Implicit,
    Preprocess,
    Unrolled,
    UserError,
    get_hyperparameters,
    learn_augmentation,
)
from crossreg.estimators import Estimator
from crossreg.models import build
from crossreg.regularizers.augmentation import warp
from crossreg.services.data import DataConfig, load_data
from crossreg.studies.batch import Batch

__all__ = ["ESTIMATORS", "STEPS", "Pictures", "brightened", "load_pictures", "only", "planted", "train"]

STEPS = 660
"""Steps of theta in a training."""
UPDATE_EVERY = 6
"""Steps of theta between updates of rho."""
UPDATE_BATCH = 512
"""Images of an update, from the training split and from the reg split each."""
REG_SHARE = 0.25
"""Share of the training data that is held out as the reg split."""
_BATCH = 128  # images of a step of theta

ESTIMATORS: dict[str, Callable[[Batch, int, int], Estimator]] = {
    "unrolled, 1 step": lambda part, seed, rows: Unrolled(_again(part, seed, rows)),
    "unrolled, 5 steps": lambda part, seed, rows: Unrolled(_again(part, seed, min(rows, _BATCH)), steps=5),
    "implicit, 10 terms": lambda part, seed, rows: Implicit(_again(part, seed, min(rows, _BATCH)), terms=10),
    "T1-T2": lambda part, seed, rows: T1T2(_again(part, seed, rows)),
}
"""Every estimator by name, with a function that makes it of the training split, a seed and the size of a batch.

All follow theta's response, since augmentation acts on training alone. Those that take several backward passes of a
batch get a smaller one.
"""


@dataclass(frozen=True)
class Pictures:
    """Three splits of normalized images `[N, C, H, W]` with their classes `[N]`, and the classes' names."""

    train: Batch
    reg: Batch
    test: Batch
    classes: tuple[str, ...]


def load_pictures(data: DataConfig, seed: int) -> Pictures:
    """Return images, split by a seed.

    Args:
        data: images with classes; `REG_SHARE` is held out where it has no share of its own.
        seed: added to that of the data.

    Raises:
        UserError: data that are no images with classes.
    """
    share = REG_SHARE if data.reg_share is None else data.reg_share
    found = load_data(data.model_copy(update={"seed": data.seed + seed, "reg_share": share}))
    if len(found.input_shape) != 3 or found.task != "classification":
        raise UserError(
            f"augmentation needs images with classes; {data.name!r} has inputs of shape {found.input_shape}"
        )
    normalize = Preprocess(torch.as_tensor(found.mean), torch.as_tensor(found.std))

    def part(split: Any) -> Batch:
        return normalize(torch.as_tensor(split.x)), torch.as_tensor(split.y)

    return Pictures(part(found.train), part(found.reg), part(found.test), found.classes)


def only(pictures: Pictures, names: tuple[str, ...]) -> Pictures:
    """Return the images of some classes alone, the classes numbered in the order of `names`."""
    numbers = torch.tensor([pictures.classes.index(name) for name in names])

    def part(x: Tensor, y: Tensor) -> Batch:
        mine = torch.isin(y, numbers)
        return x[mine], (y[mine, None] == numbers).int().argmax(1)

    return Pictures(part(*pictures.train), part(*pictures.reg), part(*pictures.test), names)


def planted(pictures: Pictures, seed: int, shift: float = 0.0, rotation: float = 0.0) -> Pictures:
    """Return the pictures with every image of reg and test shifted and turned once; training images stay as they are.

    Args:
        pictures: the splits.
        seed: of the amounts, which are drawn uniformly between minus and plus:
        shift: pixels, along each axis.
        rotation: degrees.
    """
    generator = torch.Generator().manual_seed(seed)

    def moved(x: Tensor) -> Tensor:
        u = 2 * torch.rand(len(x), 3, generator=generator) - 1
        return warp(x, shift=shift * u[:, :2], rotation=rotation * u[:, 2])

    reg, test = (
        (torch.cat([moved(x) for x in part[0].split(1000)]), part[1]) for part in (pictures.reg, pictures.test)
    )
    return replace(pictures, reg=reg, test=test)


def brightened(part: Batch, num_classes: int, size: float, *, seed: int | None = None) -> Batch:
    """Return images whose brightness gives their class away: from -size for the first class to +size for the last.

    Args:
        part: images and classes.
        num_classes: how many there are.
        size: in units of the normalized images.
        seed: of classes drawn at random, which the brightness then gives away instead; None takes the true ones.
    """
    x, y = part
    told = y
    if seed is not None:
        told = torch.randint(0, num_classes, y.shape, generator=torch.Generator().manual_seed(seed))
    return x + size * (2 * told / (num_classes - 1) - 1).view(-1, 1, 1, 1), y


def train(
    pictures: Pictures,
    magnitudes: Mapping[str, float] | None,
    estimator: str | None,
    seed: int,
    steps: int = STEPS,
    *,
    update_every: int = UPDATE_EVERY,
    update_batch: int = UPDATE_BATCH,
) -> dict[str, Any]:
    """Train a perceptron of two hidden layers with augmentation, and return what came of it.

    Args:
        pictures: the splits.
        magnitudes: start values by kind of augmentation; None trains without.
        estimator: name of the one of `ESTIMATORS` that learns the magnitudes; None leaves them as they are.
        seed: of weights, order and draws.
        steps: of theta; its step size and that of rho are lowered to zero.
        update_every: steps of theta between updates of rho.
        update_batch: images of an update, from the training split and from the reg split each; all, if there are fewer.

    Returns:
        The final "magnitudes" by kind; accuracy in % on "train", "reg" and "test", on images without augmentation;
        "gap", the accuracy on train minus that on test; "reg_loss", the cross-entropy on reg; and "seconds".
    """
    began = time.perf_counter()
    torch.manual_seed(seed)
    x, _ = pictures.train
    model = build("mlp", input_shape=tuple(x.shape[1:]), num_outputs=len(pictures.classes), hidden=256, depth=2)
    if magnitudes is not None:
        learn_augmentation(model, magnitudes)
    theta = [p for p in model.parameters() if p.requires_grad]
    optimizer = torch.optim.AdamW(theta, lr=1e-3)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    regularizer = None
    if estimator is not None:
        regularizer = _regularizer(model, optimizer, pictures, estimator, seed, update_every, update_batch)
        slower = torch.optim.lr_scheduler.CosineAnnealingLR(regularizer.optimizer, -(-steps // update_every))
    batches = _endless(Batches(*pictures.train, min(_BATCH, len(x)), seed=seed, drop_last=True))
    model.train()
    for _ in range(steps):
        images, classes = next(batches)
        F.cross_entropy(model(images), classes).backward()
        optimizer.step()
        optimizer.zero_grad()
        schedule.step()
        if regularizer is not None and regularizer.step() is not None:
            slower.step()
    return {**_outcome(model, pictures), "seconds": time.perf_counter() - began}


def _regularizer(
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    pictures: Pictures,
    estimator: str,
    seed: int,
    update_every: int,
    update_batch: int,
) -> CrossRegularizer:
    chosen = ESTIMATORS[estimator](pictures.train, seed, update_batch)
    chosen.optimizer = optimizer
    rows = min(len(pictures.reg[1]), len(pictures.train[1]), update_batch)
    reg = Batches(*pictures.reg, rows, seed=seed, drop_last=True)
    return CrossRegularizer(model, "classification", reg, update_every, 2, lr=0.1, estimator=chosen, seed=seed)


def _outcome(model: nn.Module, pictures: Pictures) -> dict[str, Any]:
    scores = {name: _score(model, getattr(pictures, name)) for name in ("train", "reg", "test")}
    return {
        "magnitudes": get_hyperparameters(model),
        **{name: accuracy for name, (accuracy, _) in scores.items()},
        "gap": scores["train"][0] - scores["test"][0],
        "reg_loss": scores["reg"][1],
    }


@torch.no_grad()
def _score(model: nn.Module, part: Batch) -> tuple[float, float]:
    """Return accuracy in % and mean cross-entropy."""
    model.eval()
    output = torch.cat([model(x) for x in part[0].split(2000)])
    return 100 * float((output.argmax(1) == part[1]).float().mean()), float(F.cross_entropy(output, part[1]))


def _again(part: Batch, seed: int, rows: int) -> Batches:
    """Return batches of the training split for an estimator, in another order than theta takes them."""
    return Batches(*part, min(rows, len(part[1])), seed=seed + 1000, drop_last=True)


def _endless(batches: Batches) -> Any:
    for epoch in count():
        batches.set_epoch(epoch)
        yield from batches
