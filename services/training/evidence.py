"""What is known of runs without flags: how they did against a tuned search, measured by `crossreg reproduce zero-flag`.

The numbers are those of `docs/results/zero-flag/rows.json`, written by `python -m crossreg.studies.zero_flag.evidence`.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import BaseModel, ConfigDict

__all__ = ["EVIDENCE", "Evidence", "Leads", "evidence"]

EVIDENCE = Path(__file__).with_name("evidence.json")


class Leads(BaseModel):
    """Leads of the run over what the search chose, one a pair of data and network, means over seeds.

    Attributes:
        pairs: how many.
        won: on how many the run was level or better in all scores.
        mean: in points of accuracy, or percent of RMSE.
        worst: the smallest.
        best: the largest.
        untouched: how many of the pairs had no part in choosing what the run does by default.
        untouched_mean: the mean on these.
    """

    model_config = ConfigDict(frozen=True)

    pairs: int
    won: int
    mean: float
    worst: float
    best: float
    untouched: int
    untouched_mean: float


class Evidence(BaseModel):
    """The study in a few numbers.

    Attributes:
        trials: trainings of the search.
        compute: of the search, as a multiple of the run's.
        seeds: trainings of each pair.
        examples: fewest and most examples of a training split.
        leads: by task.
    """

    model_config = ConfigDict(frozen=True)

    trials: int
    compute: float
    seeds: int
    examples: tuple[int, int]
    leads: dict[Literal["classification", "regression"], Leads]


def evidence() -> Evidence:
    """Return what was measured."""
    return Evidence.model_validate_json(EVIDENCE.read_text())
