"""What a study is: independent cases, a measurement of every estimator in each, and what follows from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, load_data

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["FIXED_POINT", "Measurement", "Study"]

Measurement = dict[str, Any]
"""What one estimator reached in one case: the case's settings and what was measured, by name, as JSON can hold it."""

FIXED_POINT = "direct, its fixed point"
"""Stands among the estimators' names for the solution at which the direct gradient is zero, which needs no training."""


class Study(ABC):
    """A problem with a known answer.

    Args:
        data: real data to take, for a study that takes any; None takes its default.
        only: names of its pairs, for a study that has some; none takes all.
        scale: how much it measures, for a study that has a choice; None takes the first.

    Attributes:
        name: as the user gives it.
        summary: one line for `--help`.
        columns: of the table: key of a cell in the rows of `table`, and its heading.
        labels: how many of the first of them say what a row is of.
        default_data: name of the data it takes; None where it makes its own.
        resumable: finished cases are kept on disk, and not measured again.
        has_pairs: it measures the same on several pairs of data and network, of which some can be chosen.
        scales: how much it may measure, by name; empty where there is no choice.
        seeds: random problems of each kind, unless told otherwise.

    Raises:
        UserError: data for a study that makes its own, pairs of one that has none, or a scale that it does not have.
    """

    name: str
    summary: str
    columns: ClassVar[dict[str, str]]
    labels: ClassVar[int] = 1
    default_data: ClassVar[str | None] = None
    resumable: ClassVar[bool] = False
    has_pairs: ClassVar[bool] = False
    scales: ClassVar[tuple[str, ...]] = ()
    seeds: ClassVar[int] = 3

    def __init__(self, data: DataConfig | None = None, only: Sequence[str] = (), scale: str | None = None) -> None:
        if only and not self.has_pairs:
            raise UserError(f"study {self.name!r} has no pairs to choose from; leave out --pairs")
        if scale is not None and scale not in self.scales:
            allowed = f"allowed are {', '.join(self.scales)}" if self.scales else "leave out --scale"
            raise UserError(f"scale of study {self.name!r} is {scale!r}; {allowed}")
        self.scale = scale or next(iter(self.scales), "")
        if data is not None and self.default_data is None:
            raise UserError(f"study {self.name!r} makes its own data; leave out --data and what goes with it")
        self.data = data if data or self.default_data is None else DataConfig(name=self.default_data)

    def prepare(self) -> None:
        """Find a mistake in the data before anything is solved; make what the cases share."""
        if self.data is not None:
            load_data(self.data)

    @abstractmethod
    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the cases, each as the keyword arguments of a call of `solve`.

        Args:
            seeds: how many random problems of each kind.
        """

    @abstractmethod
    def solve(self, **case: Any) -> list[Measurement]:
        """Return a measurement of every estimator in one case; it runs in a process of its own, on one core."""

    @abstractmethod
    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return the rows of a table, as text by column: the measurements of all cases summed up over seeds."""

    @abstractmethod
    def findings(self, rows: list[Measurement]) -> list[str]:
        """Return what the measurements say, in sentences."""

    @abstractmethod
    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return what is recorded in MLflow, by metric name."""

    @abstractmethod
    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw the measurements."""
