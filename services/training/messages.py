"""What the workers of a training tell its driver."""

from __future__ import annotations

from dataclasses import dataclass

from crossreg.services.training.result import TrainingResult
from crossreg.training.diagnostics import Diagnosis

__all__ = [
    "CheckpointWritten",
    "Ended",
    "Message",
    "Metrics",
    "Mistake",
    "Note",
    "Progress",
    "Seen",
    "Started",
    "Stopped",
]


@dataclass(frozen=True)
class Started:
    """Training starts at a step, or goes on there after the workers changed."""

    step: int
    num_steps: int
    workers: int


@dataclass(frozen=True)
class Metrics:
    """Metrics of a step, with the milliseconds since the epoch at which they came up."""

    step: int
    timestamp: int
    values: dict[str, float]


@dataclass(frozen=True)
class Progress:
    """Work done up to a step since the workers started; `time` is rank 0's monotonic clock, in seconds.

    `num_steps` is where it goes, and `course` what was decided about that, in words, where it is not given.
    """

    step: int
    time: float
    examples: int
    rho_updates: int
    rho_seconds: float
    num_steps: int = 0
    course: str = ""


@dataclass(frozen=True)
class CheckpointWritten:
    """A checkpoint was reported."""

    step: int


@dataclass(frozen=True)
class Seen:
    """A failure signature was seen."""

    diagnosis: Diagnosis


@dataclass(frozen=True)
class Note:
    """Something that a person should know."""

    text: str


@dataclass(frozen=True)
class Mistake:
    """Something the user gave is wrong, which only a worker could find."""

    text: str


@dataclass(frozen=True)
class Stopped:
    """Training was interrupted after a step, where a checkpoint was written."""

    step: int


@dataclass(frozen=True)
class Ended:
    """Training ended, at a step, with a result."""

    step: int
    result: TrainingResult


Message = Started | Metrics | Progress | CheckpointWritten | Seen | Note | Mistake | Stopped | Ended
