"""What was compared, with what, and where: all that a report tells and the outcomes do not."""

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
        command: the command line as it was typed.
        commit: of the code.
        machine: facts by name: processor, cores, memory, accelerator.
        versions: of Python and packages, by name.
        model: its name.
        data: the dataset's name.
        data_fingerprints: of the data, by seed.
        num_train: examples that theta trains on.
        num_reg: examples of the regularization split.
        num_test: examples of the test split.
        population: how many members a population has, and how many times the reference's compute the budget "full" is;
            "matched" is that compute once, and a budget that is a number that many times.
        unit: "flops", "examples" or "worker_seconds": the field of `Cost` that budgets are given in.
        reference: the method that the others are compared with.
        select_on: the score on the regularization split by which searches choose.
        samples: how many noise draws every noisy method averages at test; None does not tell.
        rmse_unit: what an RMSE counts, in words; empty where there is none.
        seconds: wall-clock time of the whole comparison; 0 does not tell.
        started: seconds since the epoch; 0 does not tell.
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
    rmse_unit: str = ""
    seconds: float = 0.0
    started: float = 0.0
