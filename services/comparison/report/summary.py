"""All numbers and sentences of a report as plain data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, fields, is_dataclass
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.context import Context
from crossreg.services.comparison.report.estimates import FEWEST_SEEDS
from crossreg.services.comparison.report.findings import comparison, compute_to_target_sentence, counted, verdict
from crossreg.services.comparison.report.groups import group_outcomes, reference_of, score_names
from crossreg.services.comparison.report.losses import how_to_read, losses, notes
from crossreg.services.comparison.report.numbers import column_name, mean, times
from crossreg.services.comparison.report.rows import Row, row_of

if TYPE_CHECKING:
    from rich.table import Table as RichTable

    from crossreg.services.comparison.outcome import Outcome

__all__ = ["Summary", "summarize"]


@dataclass(frozen=True)
class Summary:
    """What a comparison found.

    Attributes:
        context: what was compared, with what, and where.
        scores: names of the scores on the test split, in the order of the tables.
        rows: one for every method and budget.
        verdict: whom the reference beats and who beats it, in a sentence; empty where there is nobody.
        sentences: one paragraph for every method but the reference: who won, by how much, at what compute.
        losses: where the reference loses; empty where it was not run.
        notes: what limits the numbers.
        how_to_read: what was held equal, and what the words mean.
    """

    context: Context
    scores: list[str]
    rows: list[Row]
    verdict: str
    sentences: list[str]
    losses: list[str]
    notes: list[str]
    how_to_read: str

    @property
    def reference(self) -> Row | None:
        """The row that the others are compared with; None where it was not run."""
        return next((row for row in self.rows if row.is_reference), None)

    def as_dict(self) -> dict[str, Any]:
        """Return it as JSON takes it: dictionaries, lists, texts, numbers; one that is not finite becomes None."""
        return {field.name: _jsonable(getattr(self, field.name)) for field in fields(self)}

    def as_table(self) -> RichTable:
        """Return the scores that people ask for first as a table for a terminal."""
        from rich.table import Table
        from rich.text import Text

        shown = [name for name in ("accuracy", "nll", "ece", "rmse") if name in self.scores]
        seeds = len(self.rows[0].seeds)
        enough = seeds >= FEWEST_SEEDS
        spread = f"mean over {seeds} seeds ± half the 95 % interval" if enough else f"{counted(seeds)}: no interval"
        caption = (
            "* NLL after temperature scaling on the regularization split, where that was not trained on\n"
            f"compute: multiples of one {self.context.reference} run's {self.context.unit}"
            + (f"\nRMSE {self.context.rmse_unit}" if self.context.rmse_unit else "")
        )
        table = Table(title=f"Test split, {spread}", title_justify="left", caption=caption, caption_justify="left")
        table.add_column("", no_wrap=True)
        for name in [*map(column_name, shown), "scaled*", "compute"]:
            table.add_column(name, justify="right")
        for row in self.rows:
            scores = [mean(name, row.scores[name]) for name in shown]
            table.add_row(Text(row.label), *scores, mean("nll", row.scaled["nll"]), times(row.compute_ratio))
        return table


def summarize(outcomes: Sequence[Outcome], context: Context) -> Summary:
    """Return the numbers and sentences of a comparison.

    Args:
        outcomes: one for every method, budget and seed.
        context: what the comparison was.

    Raises:
        UserError: no outcome, or two for one method, budget and seed.
    """
    groups = group_outcomes(outcomes)
    reference = reference_of(groups, context.reference)
    names = score_names(outcomes)
    rows = [row_of(group, reference, names, context.unit, context.select_on) for group in groups]
    base = next((row for row in rows if row.is_reference), None)
    sentences = []
    if base is not None:
        for row in rows:
            if not row.is_reference:
                sentences.append(f"{comparison(row, base)} {compute_to_target_sentence(row, context)}".strip())
    said = "" if base is None else verdict(rows, base)
    return Summary(
        context, names, rows, said, sentences, losses(rows, base), notes(rows, base, context), how_to_read(context)
    )


def _jsonable(value: Any) -> Any:
    if is_dataclass(value) and not isinstance(value, type):
        shown = [field for field in fields(value) if field.metadata.get("plain", True)]
        return {field.name: _jsonable(getattr(value, field.name)) for field in shown}
    if isinstance(value, Mapping):
        return {str(key): _jsonable(entry) for key, entry in value.items()}
    if isinstance(value, list | tuple):
        return [_jsonable(entry) for entry in value]
    if isinstance(value, float):
        return value if math.isfinite(value) else None
    return value if value is None or isinstance(value, bool | int | str) else str(value)
