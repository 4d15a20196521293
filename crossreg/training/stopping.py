"""When a training has been long enough: rules on the held-out scores of its evaluations.

A run of its own asks its rule through `StopByRule`, a search asks the same rule with the scores of a trial's intervals.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping, Sequence
from typing import ClassVar

from crossreg.core.errors import UserError, nearest
from crossreg.training.callback import Callback, Stop
from crossreg.training.trainer import Trainer

__all__ = ["RULES", "Patience", "StopByRule", "StoppingRule", "stopping_rule"]


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
        return bool(scores) and len(scores) - 1 - scores.index(min(scores)) >= self.value


RULES: dict[str, type[StoppingRule]] = {rule.name: rule for rule in (Patience,)}
"""Every rule by its name."""


def stopping_rule(given: Mapping[str, float]) -> StoppingRule | None:
    """Return the rule that a configuration names, e.g. `{"patience": 5}`; None for none.

    Raises:
        UserError: more than one, an unknown one, or a setting out of range.
    """
    if not given:
        return None
    if len(given) > 1:
        raise UserError(f"stopping names {', '.join(given)}; give one rule")
    ((name, value),) = given.items()
    if name not in RULES:
        raise UserError(f"no stopping rule is called {name!r}{nearest(name, RULES)}; there are {', '.join(RULES)}")
    return RULES[name](value)


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
        best = min(trainer.held_out)
        return Stop(
            f"{self.rule.name} {self.rule.value:g}: the held-out NLL was best, {best:.4g}, "
            f"{self._seen - 1 - trainer.held_out.index(best)} evaluations ago",
            finished=True,
        )
