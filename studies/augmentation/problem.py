"""Pictures with something planted in them, and a small network that trains with augmentation of some magnitude."""

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
    learn_augmentation,
    learned,
)
from crossreg.estimators import HypergradientEstimator
from crossreg.models import build
from crossreg.regularizers.augmentation import warp
from services.data import DataConfig, load_data

__all__ = ["ESTIMATORS", "STEPS", "Pictures", "brightened", "load_pictures", "only", "planted", "train"]

Part = tuple[Tensor, Tensor]

STEPS = 660
UPDATE_EVERY = 6
UPDATE_BATCH = 512
REG_SHARE = 0.25
_BATCH = 128

ESTIMATORS: dict[str, Callable[[Part, int, int], HypergradientEstimator]] = {
    "unrolled, 1 step": lambda part, seed, rows: Unrolled(_again(part, seed, rows)),
    "unrolled, 5 steps": lambda part, seed, rows: Unrolled(_again(part, seed, min(rows, _BATCH)), steps=5),
    "implicit, 10 terms": lambda part, seed, rows: Implicit(_again(part, seed, min(rows, _BATCH)), terms=10),
    "T1-T2": lambda part, seed, rows: T1T2(_again(part, seed, rows)),
}
"""Estimators that follow theta's response, made of the training split, a seed and the rows of an update's batch.

Those that take several backward passes of it get a smaller batch.
"""


@dataclass(frozen=True)
class Pictures:
    """Three splits of normalized images `[N, C, H, W]` with their classes, and the classes' names."""

    train: Part
    reg: Part
    test: Part
    classes: tuple[str, ...]


def load_pictures(data: DataConfig, seed: int) -> Pictures:
    """Return images, split by a seed, a quarter of them held out where the data say nothing else.

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

    def part(split: Any) -> Part:
        return normalize(torch.as_tensor(split.x)), torch.as_tensor(split.y)

    return Pictures(part(found.train), part(found.reg), part(found.test), found.classes)


def only(pictures: Pictures, names: tuple[str, ...]) -> Pictures:
    """Return the images of some classes, numbered anew."""
    numbers = torch.tensor([pictures.classes.index(name) for name in names])

    def part(x: Tensor, y: Tensor) -> Part:
        mine = torch.isin(y, numbers)
        return x[mine], (y[mine, None] == numbers).int().argmax(1)

    return Pictures(part(*pictures.train), part(*pictures.reg), part(*pictures.test), names)


def planted(pictures: Pictures, seed: int, shift: float = 0.0, rotation: float = 0.0) -> Pictures:
    """Return them with every image of reg and test moved and turned once, by amounts within +- shift and rotation.

    Args:
        pictures: training images stay as they are.
        seed: of the amounts.
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


def brightened(part: Part, num_classes: int, size: float, *, seed: int | None = None) -> Part:
    """Return images whose brightness gives their class away: from -size for the first class to +size for the last.

    Args:
        part: images and classes.
        num_classes: how many there are.
        size: in units of the normalized images.
        seed: brighten by a class drawn at random instead, which gives nothing away.
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
    """Train a perceptron of two hidden layers and return what came of it.

    Args:
        pictures: the splits.
        magnitudes: of the augmentation of training images, at the start; None trains without.
        estimator: one of `ESTIMATORS`, which learns them; None leaves them as they are.
        seed: of weights, order and draws.
        steps: of theta; its step size and rho's are lowered to zero.
        update_every: steps of theta between updates of rho.
        update_batch: images of an update, from the training split and from reg each, where there are so many.

    Returns:
        Final `magnitudes`; accuracy in % on each split by its name, on images without augmentation; `gap`, that on
        train minus that on test; `reg_loss`, and `seconds`.
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
        follows = ESTIMATORS[estimator](pictures.train, seed, update_batch)
        follows.optimizer = optimizer
        rows = min(len(pictures.reg[1]), len(x), update_batch)
        reg = Batches(*pictures.reg, rows, seed=seed, drop_last=True)
        regularizer = CrossRegularizer(
            model, "classification", reg, update_every, 2, lr=0.1, temperature=False, estimator=follows, seed=seed
        )
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
    scores = {name: _score(model, getattr(pictures, name)) for name in ("train", "reg", "test")}
    return {
        "magnitudes": learned(model),
        **{name: accuracy for name, (accuracy, _) in scores.items()},
        "gap": scores["train"][0] - scores["test"][0],
        "reg_loss": scores["reg"][1],
        "seconds": time.perf_counter() - began,
    }


@torch.no_grad()
def _score(model: nn.Module, part: Part) -> tuple[float, float]:
    """Return accuracy in % and mean cross-entropy."""
    model.eval()
    output = torch.cat([model(x) for x in part[0].split(2000)])
    return 100 * float((output.argmax(1) == part[1]).float().mean()), float(F.cross_entropy(output, part[1]))


def _again(part: Part, seed: int, rows: int) -> Batches:
    # in an order of their own
    return Batches(*part, min(rows, len(part[1])), seed=seed + 1000, drop_last=True)


def _endless(batches: Batches) -> Any:
    for epoch in count():
        batches.set_epoch(epoch)
        yield from batches
