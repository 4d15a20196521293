"""What a trial is, and what it leaves behind: plain objects that travel between driver, workers and disk."""

from __future__ import annotations

import hashlib
import json
import math
from functools import cached_property
from typing import Any

from pydantic import BaseModel, ConfigDict

from services.training.config import TrainConfig

__all__ = ["Cost", "Knobs", "Record", "Schedule", "TrialSpec", "digest", "knob_name", "rank", "tune_name"]

Knobs = dict[str, float]
"""Regularization settings by name; see `crossreg.regularizers.knobs`."""

Schedule = list[tuple[int, Knobs]]
"""Knobs by the theta step after which they come into force; step 0 is before the first."""


class Cost(BaseModel):
    """What something cost; costs add up.

    Attributes:
        examples: forward passes of an example.
        backward_examples: backward passes of an example.
        flops: floating point operations (2 a multiply-add).
        worker_seconds: wall-clock seconds times workers.
    """

    model_config = ConfigDict(frozen=True, extra="ignore", ser_json_inf_nan="constants")

    examples: float = 0.0
    backward_examples: float = 0.0
    flops: float = 0.0
    worker_seconds: float = 0.0

    def __add__(self, other: Cost) -> Cost:
        return self._combined(other, 1)

    def __sub__(self, other: Cost) -> Cost:
        return self._combined(other, -1)

    def __mul__(self, factor: float) -> Cost:
        return Cost(**{name: factor * value for name, value in self.model_dump().items()})

    def _combined(self, other: Cost, sign: int) -> Cost:
        mine, others = self.model_dump(), other.model_dump()
        return Cost(**{name: mine[name] + sign * others[name] for name in mine})


class TrialSpec(BaseModel):
    """One training in a search or a comparison: everything that decides it but the knobs that change on the way.

    Attributes:
        config: what is trained; `steps` is given, `evaluations` says into how many intervals it is cut.
        data: fingerprint of the data.
        select: a choice depends on the regularization split's scores, so they count as compute.
        schedule: knobs that come into force at given steps (a replay); None leaves them to the search.
        patience: intervals without a better regularization NLL after which the trial ends; None trains to the end.
    """

    model_config = ConfigDict(frozen=True)

    config: TrainConfig
    data: str
    select: bool = False
    schedule: Schedule | None = None
    patience: int | None = None

    @property
    def steps(self) -> int:
        """Theta steps in all."""
        assert self.config.steps is not None
        return self.config.steps

    @property
    def interval(self) -> int:
        """Theta steps between records."""
        return max(1, math.ceil(self.steps / self.config.evaluations))

    @cached_property
    def digest(self) -> str:
        """Sixteen hex digits, equal for trials that are equal step by step."""
        # patience only says when to end, and root and download where the data lie
        plain = self.model_dump(mode="json", exclude={"patience": True, "config": {"data": {"root", "download"}}})
        return digest(plain)


class Record(BaseModel):
    """What one interval of a trial left.

    Attributes:
        state: id of the training state after the interval.
        parent: id of the state that it started from; None is the beginning.
        spec: digest of the trial's specification.
        until: theta steps done after it.
        given: knobs that were set before the interval.
        knobs: every knob's value at its end.
        scores: by split (`reg`, `test`): accuracy, nll, ece, brier, or what the task has.
        metrics: all that the loop said on the way: step, milliseconds since the epoch, values by metric key.
        sigma: noise scale by layer at its end.
        cost: of this interval, counted again for every time it was begun and not ended.
        peak_memory_bytes: of the worker so far.
        began: seconds since the epoch.
        ended: seconds since the epoch.
    """

    model_config = ConfigDict(frozen=True, ser_json_inf_nan="constants")

    state: str
    parent: str | None
    spec: str
    until: int
    given: Knobs
    knobs: Knobs
    scores: dict[str, dict[str, float]]
    metrics: list[tuple[int, int, dict[str, float]]]
    sigma: dict[str, float]
    cost: Cost
    peak_memory_bytes: int
    began: float
    ended: float

    def score(self, split: str, name: str) -> float:
        """Return a score, infinite where it is missing or not a number: such a trial loses every choice."""
        value = self.scores.get(split, {}).get(name, math.nan)
        return value if math.isfinite(value) else math.inf


def rank(record: Record, select_on: str) -> float:
    """Return the score on the regularization split that decides, lower is better; infinite where there is none."""
    score = record.score("reg", select_on)
    return 1 - score if select_on == "accuracy" and math.isfinite(score) else score


def tune_name(knob: str) -> str:
    """Return a knob's name at the top of Ray Tune's configurations, where a slash would mean nesting."""
    return knob.replace("/", "|")


def knob_name(key: str) -> str:
    """Return the knob that a name of `tune_name` stands for."""
    return key.replace("|", "/")


def digest(plain: Any) -> str:
    """Return sixteen hex digits that identify plain values."""
    return hashlib.sha256(json.dumps(plain, sort_keys=True, default=str).encode()).hexdigest()[:16]
