"""When a training has been long enough: rules on the held-out scores of its evaluations.

A run of its own asks its rule through `StopByRule`, a search asks the same rule with the scores of a trial's intervals.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from crossreg.core.errors import UserError
from crossreg.training.callback import Callback, Stop
from crossreg.training.trainer import Trainer

__all__ = ["Patience", "StopByRule", "StoppingRule"]


class StoppingRule(ABC):
    """Says from held-out scores whether a training has been long enough.

    Args:
        value: the one setting of the rule.

    Attributes:
        name: as it is asked for.
        help: one line, with what the setting is.
    """

    name: ClassVar[str]
    help: ClassVar[str]

    def __init__(self, value: float) -> None:
        self.value = value

    @abstractmethod
    def should_stop(self, scores: Sequence[float]) -> bool:
        """Say so.

        Args:
            scores: held-out score of every evaluation so far, lower is better; infinite where it had none.
        """

    def reason(self, scores: Sequence[float]) -> str:
        """Return why it ended, in words."""
        return f"{self.name} {self.value:g}: after {len(scores)} evaluations the held-out NLL is {scores[-1]:.4g}"


class Patience(StoppingRule):
    """Ends after so many evaluations without a better one.

    Source: Prechelt 1998, Early Stopping, But When?
    """

    name = "patience"
    help = "evaluations without a better held-out score"

    def __init__(self, value: float) -> None:
        if isinstance(value, bool) or not float(value).is_integer() or value < 1:
            raise UserError(f"patience is {value!r}; it must be a number of evaluations, at least 1")
        super().__init__(int(value))

    def should_stop(self, scores: Sequence[float]) -> bool:
        """Say whether the best one lies so far back."""
        return bool(scores) and self._since_best(scores) >= self.value

    def reason(self, scores: Sequence[float]) -> str:
        """Return when the best one was."""
        best = f"the held-out NLL was best, {min(scores):.4g}, {self._since_best(scores)} evaluations ago"
        return f"{self.name} {self.value:g}: {best}"

    def _since_best(self, scores: Sequence[float]) -> int:
        return len(scores) - 1 - scores.index(min(scores))


class StopByRule(Callback):
    """Ends a training as a rule says of the regularization split's NLL."""

    def __init__(self, rule: StoppingRule) -> None:
        self.rule = rule
        self._seen = 0

    def on_start(self, trainer: Trainer) -> None:
        """Go on from the scores that a resumed run brings; where they say so, the run has ended there."""
        self._seen = 0
        if trainer.step < trainer.num_steps:
            trainer.stopped = self.should_stop(trainer)

    def should_stop(self, trainer: Trainer) -> Stop | None:
        """Ask the rule after every evaluation."""
        if len(trainer.held_out) == self._seen:
            return None
        self._seen = len(trainer.held_out)
        if not self.rule.should_stop(trainer.held_out):
            return None
        return Stop(self.rule.reason(trainer.held_out), finished=True)
