"""One training that goes on with other data from time to time, and is looked at before each change.

At a constant learning rate weights jump about where they are going: what is measured at the end of a stage is the mean
of a few looks.
"""

from __future__ import annotations

import copy
import statistics
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from typing import Any

import torch

from crossreg.batches import Batches
from crossreg.core.random import derive_seed
from crossreg.prediction.evaluation import evaluate
from crossreg.regularizer import RhoUpdate
from crossreg.regularizers.temperature import temperature
from crossreg.services.data import Dataset, Split
from crossreg.studies.paper.training import Hold, build, sigma_of
from crossreg.training.callback import Callback
from crossreg.training.trainer import Trainer

__all__ = ["Stages", "batches_like", "run_stages", "seen"]

LOOKS, APART = 4, 0.05
"""How often the end of a stage is looked at, and how far apart, as a share of the stage."""
DRAWS = 4
"""Of noise in each of them: as many together as a last evaluation has by default."""
Look = Callable[[Trainer, int], list[dict[str, Any]]]


class Stages(Callback):
    """Goes on with the data of the next stage after so many steps.

    Args:
        data: of every stage; the training was built with those of the first.
        steps: of a stage.
        look: returns measurements, given the number of the stage from 0; called a few times at its end.
        reg: the regularization split changes too; if not, it stays that of the first stage.

    Attributes:
        rows: what `look` returned, numbers with a point averaged over its calls, the rest that of the last; each with
            "curve": at every update of rho in the stage "step", "loss" before it (of
            the averaged prediction on regularization data), "sigma" and "temperature" after it.
        first: state of the training after the first stage, from which others can go on.
    """

    def __init__(self, data: Sequence[Dataset], steps: int, look: Look, *, reg: bool = False) -> None:
        self.data, self.steps, self.look, self.reg = data, steps, look, reg
        self.rows: list[dict[str, Any]] = []
        self.first: dict[str, Any] = {}
        self._curve: list[dict[str, Any]] = []
        self._looks: list[list[dict[str, Any]]] = []

    def on_start(self, trainer: Trainer) -> None:
        """Begin the stage that a restored training has reached."""
        if trainer.step:
            self._begin(trainer, trainer.step // self.steps)

    def on_rho_update(self, trainer: Trainer, update: RhoUpdate) -> None:
        """Note what was learned."""
        self._curve.append(
            {
                "step": trainer.step,
                "loss": update.loss,
                "sigma": sigma_of(trainer.model),
                "temperature": float(temperature(trainer.model)),
            }
        )

    def on_step(self, trainer: Trainer) -> None:
        """Look towards the end of a stage, and begin the next."""
        gap = max(1, round(APART * self.steps))
        left = -trainer.step % self.steps
        if left % gap == 0 and left < LOOKS * gap:
            self._looks.append(self.look(trainer, (trainer.step - 1) // self.steps))
        if left:
            return
        stage = trainer.step // self.steps
        self.rows += [{**_averaged(row), "curve": self._curve} for row in zip(*self._looks, strict=True)]
        self._curve, self._looks = [], []
        if stage == 1:
            self.first = copy.deepcopy(trainer.state_dict())
        if stage < len(self.data):
            self._begin(trainer, stage)

    def _begin(self, trainer: Trainer, stage: int) -> None:
        trainer.go_on_with(batches_like(self.data[stage].train, trainer.train, stage))
        if self.reg and trainer.regularizer is not None:
            before = trainer.regularizer.reg_loader
            assert isinstance(before, Batches)
            trainer.regularizer.go_on_with(batches_like(self.data[stage].reg, before, stage))


def run_stages(
    config: Mapping[str, Any],
    data: Sequence[Dataset],
    steps: int,
    seed: int,
    look: Look,
    *,
    reg: bool = False,
    state: Mapping[str, Any] | None = None,
    hold: Collection[str] = (),
) -> Stages:
    """Train through all stages at a constant learning rate and return what was seen.

    Args:
        config: fields of `TrainConfig` but data, seed, steps and the schedule.
        data: of every stage.
        steps: of a stage.
        seed: of weights, order and draws.
        look: see `Stages`.
        reg: see `Stages`.
        state: of a training after a stage, from which this one goes on; None begins.
        hold: regularizers that are learned no further; see `Hold`.
    """
    stages = Stages(data, steps, look, reg=reg)
    # its own evaluation, at the end, is not what is measured
    whole = {**config, "steps": steps * len(data), "optimizer": {"schedule": "constant"}, "final_samples": 1}
    trainer = build(whole, data[0], seed, [Hold(*hold), stages] if hold else [stages])
    if state is not None:
        trainer.load_state_dict(state)
    trainer.fit()
    return stages


def seen(trainer: Trainer, split: Iterable[Any]) -> dict[str, float]:
    """Return accuracy, NLL, Brier score and ECE of the present model on batches."""
    return evaluate(trainer.model, trainer.loss, split, DRAWS, trainer.seed).scores


def batches_like(split: Split, like: Batches, stage: int) -> Batches:
    """Return batches of a split, made as others are, in an order of their own."""
    return Batches(
        torch.from_numpy(split.x),
        torch.from_numpy(split.y),
        like.batch_size,
        preprocess=like.preprocess,
        shuffle=like.shuffle,
        drop_last=like.drop_last,
        seed=derive_seed(like.seed, stage),
        device=like.device,
    )


def _averaged(looks: Sequence[dict[str, Any]]) -> dict[str, Any]:
    means = {k: statistics.mean(look[k] for look in looks) for k, last in looks[-1].items() if isinstance(last, float)}
    return looks[-1] | means
