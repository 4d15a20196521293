"""The tables of a report, as text in cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from crossreg.services.comparison.report.estimates import Difference, Estimate, Verdict
from crossreg.services.comparison.report.findings import SCALED
from crossreg.services.comparison.report.numbers import (
    DASH,
    UNIT_NAMES,
    brackets,
    budget_name,
    column_name,
    duration,
    factor,
    mean,
    memory,
    quantity,
    score_name,
    signed,
    times,
)
from crossreg.services.comparison.report.rows import Row
from crossreg.services.comparison.report.summary import Summary

__all__ = ["Cell", "Table", "tables"]

_VERDICTS: dict[Verdict, str] = {"undecided": "undecided", "few seeds": "no interval", "nothing": ""}


@dataclass(frozen=True)
class Cell:
    """What stands in a cell.

    Attributes:
        text: a number or name.
        spread: an interval; may be empty.
        remark: what it means; may be empty.
        tone: "wins", "loses" or nothing: a colour that repeats the remark.
    """

    text: str
    spread: str = ""
    remark: str = ""
    tone: str = ""


@dataclass(frozen=True)
class Table:
    """A table with a heading.

    Attributes:
        title: the heading.
        header: of the columns; the first two are method and budget.
        rows: the cells of each.
        notes: paragraphs that stand below.
    """

    title: str
    header: list[str]
    rows: list[list[Cell]]
    notes: list[str]


def tables(summary: Summary) -> list[Table]:
    """Return the report's tables: scores, differences, compute to target, cost; those that have something to say."""
    made = [_scores(summary), _differences(summary), _compute_to_target(summary), _cost(summary)]
    return [table for table in made if table.rows]


def _scores(summary: Summary) -> Table:
    """Return the scores of every method, raw and temperature-scaled."""
    scaled = [score for score in SCALED if any(_has(row.scaled, score) for row in summary.rows)]
    header = ["seeds", *map(column_name, summary.scores), *(f"{score_name(score)} scaled" for score in scaled)]
    compared = summary.reference is not None
    if compared:
        header.append("× compute")

    def cells(row: Row) -> list[Cell]:
        seeds = Cell(str(len(row.seeds)), "", f"{len(row.diverged)} diverged" if row.diverged else "")
        values = [mean(score, row.scores[score]) for score in summary.scores]
        values += [mean(score, row.scaled[score]) for score in scaled]
        return [seeds, *map(Cell, values), *([Cell(times(row.compute_ratio))] if compared else [])]

    notes = [
        "Mean over seeds ± half the 95 % interval, which holds what differs between seeds and between samples of test "
        "examples; for fewer than three seeds there is none."
    ]
    return _table("Scores on the test split", header, summary.rows, cells, notes)


def _differences(summary: Summary) -> Table:
    """Return every score minus the reference's."""
    name = summary.context.reference
    others = [row for row in summary.rows if row.differences]
    scaled = [score for score in SCALED if any(_has(row.scaled_differences, score) for row in others)]
    header = [column_name(score).replace("%", "points") for score in summary.scores]
    header += [f"{score_name(score)} scaled" for score in scaled]

    def cell(score: str, paired: Difference) -> Cell:
        remark = _VERDICTS.get(paired.verdict, f"{name} {paired.verdict}")
        return Cell(
            signed(score, paired), brackets(score, paired), remark, paired.verdict if paired.excludes_zero else ""
        )

    def cells(row: Row) -> list[Cell]:
        raw = [cell(score, row.differences[score]) for score in summary.scores]
        return raw + [cell(score, row.scaled_differences[score]) for score in scaled]

    notes = [
        f"Method minus {name} on the same seed and the same test examples: mean and 95 % interval; accuracy in points. "
        f"{name} “wins” or “loses” where the interval excludes zero; “undecided” where it includes zero."
    ]
    return _table(f"Paired differences to {name}", header, others, cells, notes)


def _compute_to_target(summary: Summary) -> Table:
    """Return what the reference spent until it was as good as a search and stayed so, as a fraction."""
    name = summary.context.reference
    found = {row.label: row.compute_to_target for row in summary.rows if row.compute_to_target is not None}
    searches = [row for row in summary.rows if row.label in found and found[row.label].num_seeds]
    scores = [score for score in summary.scores if any(score in found[row.label].behind for row in searches)]
    header = ["fraction of its compute", *(f"test {column_name(score)} short then" for score in scores)]

    def cells(row: Row) -> list[Cell]:
        one = found[row.label]
        short = [_short(score, one.behind.get(score, math.nan)) for score in scores]
        return [Cell(factor(one.mean) if one.fractions else "never", "", one.counted), *map(Cell, short)]

    chosen = score_name(summary.context.select_on)
    notes = [
        f"Compute of {name} from which on its {chosen} on the regularization split, by which models are chosen, was as "
        "good as the search's final one to the end of the run, as a fraction of all the search's compute: mean over "
        "the seeds that reached it, and how many did. Beside it what its test scores were short of the search's then "
        "(minus: ahead). No look at the test split decides when.",
    ]
    return _table(f"Compute to target: what {name} needed to stay as good as a search", header, searches, cells, notes)


def _short(score: str, value: float) -> str:
    if math.isnan(value):
        return DASH
    return f"{100 * value:+.2f}".replace("-", "−") if score == "accuracy" else f"{value:+.3f}".replace("-", "−")


def _cost(summary: Summary) -> Table:
    """Return what every method spent."""
    unit, name = summary.context.unit, summary.context.reference
    columns: list[tuple[str, Callable[[Row], str]]] = [
        ("trials", lambda row: f"{row.trials:.4g}"),
        ("worker time", lambda row: duration(row.worker_seconds)),
        ("wall-clock time", lambda row: duration(row.seconds)),
        ("worker utilization", lambda row: _share(row.utilization)),
        ("peak memory", lambda row: memory(row.peak_memory_bytes)),
    ]
    if summary.reference is not None:
        columns.insert(0, (f"× {name}", lambda row: times(row.compute_ratio)))
    if unit != "worker_seconds":
        columns.insert(0, (f"compute ({UNIT_NAMES[unit]})", lambda row: quantity(row.compute.mean, unit)))

    def cells(row: Row) -> list[Cell]:
        return [Cell(text(row)) for _, text in columns]

    notes = [
        "Means over seeds; peak memory is of the worker that used most. Trials that lost, failed or were stopped "
        "count. Worker utilization is the share of their time that workers trained, from the end of a search's first "
        "interval to the end of its last."
    ]
    return _table("What it cost", [title for title, _ in columns], summary.rows, cells, notes)


def _table(
    title: str, header: list[str], rows: Sequence[Row], cells: Callable[[Row], list[Cell]], notes: list[str]
) -> Table:
    filled = [[Cell(row.method), Cell(budget_name(row.budget)), *cells(row)] for row in rows]
    return Table(title, ["method", "budget", *header], filled, notes)


def _share(value: float) -> str:
    return DASH if math.isnan(value) else f"{100 * value:.0f} %"


def _has(found: Mapping[str, Estimate], score: str) -> bool:
    return score in found and bool(found[score].values)
