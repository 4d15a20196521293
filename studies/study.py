"""What a study is: cases that need nothing from one another, a row for every estimator, and what follows from them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.core.errors import UserError
from services.data import DataConfig

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Row", "Study"]

Row = dict[str, Any]
"""What one estimator reached in one case: names, settings and numbers."""


class Study(ABC):
    """A problem with a known answer.

    Args:
        data: real data to take, for a study that takes any; None takes its default.

    Attributes:
        name: as the user gives it.
        summary: one line for `--help`.
        columns: of the table: key of a cell in `table`'s rows, and its heading.
        default_data: name of the data it takes; None where it makes its own.

    Raises:
        UserError: data for a study that makes its own.
    """

    name: str
    summary: str
    columns: ClassVar[dict[str, str]]
    default_data: ClassVar[str | None] = None

    def __init__(self, data: DataConfig | None = None) -> None:
        if data is not None and self.default_data is None:
            raise UserError(f"study {self.name!r} makes its own data; leave out --data and what goes with it")
        self.data = data if data or self.default_data is None else DataConfig(name=self.default_data)

    @abstractmethod
    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the arguments of every `solve`."""

    @abstractmethod
    def solve(self, **case: Any) -> list[Row]:
        """Return a row for every estimator; runs in a process of its own, on one core."""

    @abstractmethod
    def table(self, rows: list[Row]) -> list[dict[str, str]]:
        """Return the rows summed up over seeds, as text by column."""

    @abstractmethod
    def findings(self, rows: list[Row]) -> list[str]:
        """Return what the numbers say, a sentence each."""

    @abstractmethod
    def numbers(self, rows: list[Row]) -> dict[str, float]:
        """Return what is recorded in MLflow, by metric name."""

    @abstractmethod
    def figure(self, rows: list[Row]) -> Figure:
        """Draw them."""
