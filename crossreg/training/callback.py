"""Hooks into the training loop."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from crossreg.regularizer import RhoUpdate

if TYPE_CHECKING:
    from crossreg.training.trainer import Trainer

__all__ = ["Callback", "Stop"]


@dataclass(frozen=True)
class Stop:
    """That training ends before its last step.

    Attributes:
        reason: in words.
        finished: the run has reached its end, and is evaluated as at its last step; if not, it is only interrupted and
            goes on from a checkpoint.
    """

    reason: str
    finished: bool


class Callback:
    """Hooks into the loop, called on every rank; override what you need."""

    def on_start(self, trainer: Trainer) -> None:
        """Called before the first step of a fresh or resumed run."""

    def should_stop(self, trainer: Trainer) -> Stop | None:
        """Say whether to end now; called after every step and its evaluation, before the step is reported.

        All ranks must say the same. The first callback that says so counts; it is in `trainer.stopped` from then on.
        """
        return None

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Called with metrics of step `trainer.step`, under the keys of `crossreg.core.metrics`."""

    def on_rho_update(self, trainer: Trainer, update: RhoUpdate) -> None:
        """Called after every rho step."""

    def on_step(self, trainer: Trainer) -> None:
        """Called after every theta step and the rho step that may follow it; the place for checkpoints."""

    def on_end(self, trainer: Trainer) -> None:
        """Called after the last step and its evaluation."""
