"""What a comparison was: all that its outcomes do not say."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["Context"]


@dataclass(frozen=True, kw_only=True)
class Context:
    """What was compared, with what, and where.

    Attributes:
        title: heading of the report.
        command: as it was typed.
        commit: of the code.
        machine: facts by name: processor, cores, memory, accelerator.
        versions: of Python and packages, by name.
        model: its name.
        data: the dataset's name.
        data_fingerprints: of the data, by seed.
        num_train: examples that theta trains on.
        num_reg: examples of the regularization split.
        num_test: examples of the test split.
        population: members of a population; a full budget is so many times the reference's compute.
        unit: "flops", "examples" or "worker_seconds": the field of `Cost` that budgets are given in.
        reference: the method that the others are compared with.
        select_on: the score on the regularization split by which searches choose.
        samples: K, noise draws averaged at test by every noisy method; None leaves the number out.
        seconds: wall-clock time of the whole comparison.
        started: seconds since the epoch; 0 leaves it out.
    """

    title: str
    command: str = ""
    commit: str = ""
    machine: Mapping[str, Any] = field(default_factory=dict)
    versions: Mapping[str, str] = field(default_factory=dict)
    model: str
    data: str
    data_fingerprints: Mapping[Any, str] = field(default_factory=dict)
    num_train: int
    num_reg: int
    num_test: int
    population: int
    unit: str = "flops"
    reference: str = "crossreg"
    select_on: str = "nll"
    samples: int | None = None
    seconds: float = 0.0
    started: float = 0.0
