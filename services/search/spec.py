"""What a trial is, and what it leaves behind: plain objects that travel between driver, workers and disk."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Annotated, Any

from pydantic import BaseModel, ConfigDict

from crossreg.services.settings import NullIsNan, Scores
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.training.compute import Cost

__all__ = ["Record", "Schedule", "TrialSpec", "Values", "digest", "selection_score"]

Values = dict[str, float]
"""Values of hyperparameters by name, in natural units; see `crossreg.regularizers.registry`."""

Schedule = list[tuple[int, Values]]
"""Values by the theta step after which they come into force; step 0 is before the first."""


class TrialSpec(BaseModel):
    """One training in a search or a comparison: everything that decides it but the values that change on the way.

    Attributes:
        config: what is trained; `evaluations` says into how many intervals it is cut, and its stopping rule is asked
            after each.
        data: fingerprint of the data.
        select: a choice depends on the regularization split's scores, so they count as compute.
        schedule: values that come into force at given steps (a replay); None leaves them to the search.
    """

    model_config = ConfigDict(frozen=True)

    config: ResolvedConfig
    data: str
    select: bool = False
    schedule: Schedule | None = None

    @property
    def steps(self) -> int:
        """Theta steps in all."""
        return self.config.steps

    @property
    def interval(self) -> int:
        """Theta steps between records."""
        return self.config.evaluation_interval

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits, equal for trials that are equal step by step."""
        # a stopping rule only says when to end, and root and download where the data lie
        plain = self.model_dump(mode="json", exclude={"config": {"stopping": True, "data": {"root", "download"}}})
        return digest(plain)


class Record(BaseModel):
    """What one interval of a trial left.

    Attributes:
        state: id of the training state after the interval.
        parent: id of the state that it started from; None is the beginning.
        spec: digest of the trial's specification.
        until: theta steps done after it.
        last: the training has ended with it, which may be before all steps that it was given.
        given: values that were set before the interval.
        hyperparameters: every hyperparameter's value at its end.
        scores: by split (`reg`, `test`): accuracy, nll, ece, brier, or what the task has.
        metrics: all that the loop said on the way: step, milliseconds since the epoch, values by metric key.
        cost: of this interval, counted again for every time it was begun and not ended.
        peak_memory_bytes: of the worker so far.
        began: seconds since the epoch.
        ended: seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True)

    state: str
    parent: str | None
    spec: str
    until: int
    last: bool = False
    given: Values
    hyperparameters: Scores
    scores: dict[str, Scores]
    metrics: list[tuple[int, int, Scores]]
    cost: Annotated[Cost, NullIsNan]
    peak_memory_bytes: int
    began: float
    ended: float

    def score(self, split: str, name: str) -> float:
        """Return a score, infinite where it is missing or not a number: such a trial loses every choice."""
        value = self.scores.get(split, {}).get(name, math.nan)
        return value if math.isfinite(value) else math.inf


def selection_score(record: Record, select_on: str) -> float:
    """Return the score on the regularization split that decides, lower is better; infinite where there is none."""
    score = record.score("reg", select_on)
    return 1 - score if select_on == "accuracy" and math.isfinite(score) else score


def digest(plain: Any) -> str:
    """Return sixteen hex digits that identify plain values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]
