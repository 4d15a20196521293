"""Learned optimizers, as a kind: `learned` is the one that is shipped, `learned:FILE` one of `crossreg meta-train`."""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import nn

from crossreg.optimizers import SHIPPED, LearnedOptimizer, LearnedRule, load_rule
from crossreg.services.training.optimizer_config import ResolvedOptimizer
from crossreg.services.training.optimizers.base import OptimizerKind

__all__ = ["Learned"]


class Learned(OptimizerKind):
    """An update rule that meta-training found; its learning rate is its own, schedule and weight decay the run's."""

    name = "learned"
    options = frozenset({"beta2"})  # of AdamW, where that takes over
    takes_file = True
    has_step_sizes = False

    def build(
        self, config: ResolvedOptimizer, theta: list[nn.Parameter], weight_decay: float, steps: int
    ) -> torch.optim.Optimizer:
        """Return the optimizer.

        Raises:
            UserError: the file is missing, damaged or another's.
        """
        return LearnedOptimizer(theta, self.rule, config.lr, weight_decay=weight_decay, betas=(0.9, config.beta2))

    def lr(self) -> float:
        """Return the learning rate that the rule was meta-trained with."""
        return self.rule.about.lr

    def identity(self) -> dict[str, Any]:
        """Return what tells this rule from others: the file may move, and may not change."""
        return {"name": self.name, "rule": self.rule.digest}

    def artifacts(self) -> dict[str, Path]:
        """Return the file of the rule."""
        return {"optimizer.safetensors": self._path}

    def notes(self, steps: int) -> list[str]:
        """Return what is said of it before a run of at most so many steps."""
        about = self.rule.about
        said = [
            f"optimizer: learned on {', '.join(about.tasks) or 'unnamed tasks'}, meta-loss {about.meta_loss}, "
            f"trainings of up to {about.horizon} steps"
        ]
        if steps > about.horizon:
            said.append(
                f"note: this run may take {steps} steps, and its optimizer was meta-trained on up to {about.horizon}; "
                "beyond, how it behaves is not known"
            )
        return said

    @cached_property
    def rule(self) -> LearnedRule:
        """What the file holds."""
        return load_rule(self._path)

    @property
    def _path(self) -> Path:
        return Path(self.file or SHIPPED)
