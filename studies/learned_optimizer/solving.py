"""One case of the study: a rule meta-trained and tried, or another optimizer at one of its rates."""

from __future__ import annotations

import time
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from crossreg.meta import MetaLoss, meta_train
from crossreg.optimizers import About, update_rule
from crossreg.studies.learned_optimizer.scenes import (
    HORIZON,
    SCALES,
    SEEN,
    Setting,
    data_file,
    examples,
    plan_of,
    task_of,
)
from crossreg.studies.learned_optimizer.trainings import OTHERS, Optimizer, learned, trained

if TYPE_CHECKING:
    from crossreg.studies.study import Measurement

__all__ = ["solve_learned", "solve_other"]

UNTUNED = 1e-3
"""The learning rate that `torch.optim.AdamW` has where none is given."""


def solve_learned(
    rule: str, loss: str, seed: int, scale: str, root: Path, device: torch.device | None = None
) -> list[Measurement]:
    """Meta-train a rule and try it on every setting.

    Args:
        rule: its form.
        loss: the meta-loss.
        seed: of meta-training.
        scale: how much, see `SCALES`.
        root: holds the data, see `prepare`.
        device: where; None is the CPU.
    """
    device = device or torch.device("cpu")
    size = SCALES[scale]
    task = task_of(SEEN, examples(SEEN.data, data_file(root), device))
    began = time.perf_counter()
    plan = plan_of(rule, loss, seed, size.iterations[rule])
    trainer = meta_train(update_rule(rule), plan, [task])
    seconds = time.perf_counter() - began
    assert plan.inner_lr is not None
    found = trainer.learned(About(HORIZON, plan.inner_lr, loss))
    about = {"what": "learned", "rule": rule, "loss": loss, "seed": seed, "seconds": seconds, "device": device.type}
    rows = _tried(learned(found), MetaLoss(), plan.inner_lr, scale, root, device)
    return [{**about, **row} for row in rows]


def solve_other(
    optimizer: str, lr: float, scale: str, root: Path, device: torch.device | None = None
) -> list[Measurement]:
    """Try an optimizer at one learning rate on every setting; the arguments are those of `solve_learned`."""
    make, follows, _ = OTHERS[optimizer]
    about = {"what": "other", "rule": optimizer, "loss": "", "seed": 0}
    device = device or torch.device("cpu")
    return [{**about, **row} for row in _tried(make, follows, lr, scale, root, device)]


def _tried(
    make: Optimizer, follows: MetaLoss, lr: float, scale: str, root: Path, device: torch.device
) -> list[Measurement]:
    rows = []
    for setting in SCALES[scale].settings:
        given = examples(setting.data, data_file(root), device)
        task = task_of(setting, given)
        for factor in _factors(setting, scale):
            for inner in range(SCALES[scale].inner if factor < SCALES[scale].longest else 2):
                flat = setting == SEEN and factor == 1
                row = trained(task, given, make, follows, lr, factor * HORIZON, inner, flat=flat)
                rows.append({"setting": setting.name, "factor": factor, **row})
    return rows


def _factors(setting: Setting, scale: str) -> tuple[int, ...]:
    """Return by how much a training is longer than the longest that rules were meta-trained on."""
    return (1, 2, SCALES[scale].longest) if setting == SEEN else (1, 2) if setting.data == SEEN.data else (1,)
