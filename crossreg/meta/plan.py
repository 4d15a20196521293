"""What is set about a meta-training."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Literal

from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed
from crossreg.meta.losses import MetaLoss

__all__ = ["MetaPlan"]


@dataclass(frozen=True)
class MetaPlan:
    """All that decides a meta-training beside its tasks and its form of update rule.

    Attributes:
        meta_loss: what is lowered.
        horizon: steps of the longest inner trainings.
        iterations: updates of the rule.
        window: inner steps between updates, on average; drawn anew each time, from half to one and a half of it.
        trainings: inner trainings at the same time, over all actors.
        estimator: "gradient" differentiates through a window (truncated backpropagation, no second derivatives);
            "nres" compares pairs of rules that are perturbed for a whole inner training.
        lr: of Adam on the rule's weights, to zero along a cosine.
        clip: largest norm of their gradient.
        sigma: of nres: deviation of the perturbations.
        inner_lr: learning rate of inner trainings, to zero along a cosine; None takes the rule's.
        weight_decay: of inner trainings.
        spread: each inner training is of weights theta / c, with ln c uniform up to this in size: to a rule whose
            update has a size of its own that is another learning rate, to others another scale of all gradients.
        shortest: horizon at the beginning, which doubles again and again until half of the iterations are done.
        emphasis: power of the share of an inner training that is over, by which its meta-loss counts: 0 takes the mean
            over all steps, larger ones ask for where it ends.
        seed: of all that is random.

    Raises:
        UserError: a value out of range.
    """

    meta_loss: MetaLoss = field(default_factory=MetaLoss)
    horizon: int = 200
    iterations: int = 1_000
    window: int = 20
    trainings: int = 16
    estimator: Literal["gradient", "nres"] = "gradient"
    lr: float = 3e-3
    clip: float = 1.0
    sigma: float = 0.01
    inner_lr: float | None = None
    weight_decay: float = 0.01
    spread: float = 0.5
    shortest: int = 50
    emphasis: float = 0.0
    seed: int = 0

    def __post_init__(self) -> None:
        for name in ("horizon", "iterations", "window", "trainings", "shortest"):
            if getattr(self, name) < 1:
                raise UserError(f"{name} of a meta-training is {getattr(self, name)}; it must be at least 1")
        for name in ("lr", "clip", "sigma", *(["inner_lr"] if self.inner_lr is not None else [])):
            if not 0 < getattr(self, name) < math.inf:
                raise UserError(f"{name} of a meta-training is {getattr(self, name)}; it must be positive")
        for name in ("weight_decay", "spread", "emphasis"):
            if not 0 <= getattr(self, name) < math.inf:
                raise UserError(f"{name} of a meta-training is {getattr(self, name)}; it must not be negative")
        if self.estimator not in ("gradient", "nres"):
            raise UserError(f"estimator is {self.estimator!r}; allowed are gradient and nres")

    def longest(self, iteration: int) -> int:
        """Return the horizon of inner trainings that begin at an iteration: the curriculum."""
        first = min(self.shortest, self.horizon)
        done = min(1.0, 2 * iteration / self.iterations)
        return round(first * (self.horizon / first) ** done)

    def steps(self, iteration: int) -> int:
        """Return the inner steps of an iteration, the same for all actors."""
        low, high = max(1, self.window // 2), max(1, self.window + self.window // 2)
        return low + derive_seed(self.seed, "window", iteration) % (high - low + 1)
