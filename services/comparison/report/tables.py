"""The tables of a report, as text in cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from services.comparison.report.compute_to_target import ComputeToTarget
from services.comparison.report.estimates import Difference, Estimate, Verdict
from services.comparison.report.findings import SCALED
from services.comparison.report.numbers import (
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
from services.comparison.report.rows import Row
from services.comparison.report.summary import Summary

__all__ = ["Cell", "Table", "tables"]

_VERDICTS: dict[Verdict, str] = {"undecided": "undecided", "one seed": "one seed", "nothing": ""}


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

    notes = ["Mean over seeds ± half the 95 % interval; with one seed there is no interval."]
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
        f"Method minus {name} on the same seed: mean and 95 % interval; accuracy in points. {name} “wins” or “loses” "
        "where the interval excludes zero; “undecided” where it includes zero."
    ]
    return _table(f"Paired differences to {name}", header, others, cells, notes)


def _compute_to_target(summary: Summary) -> Table:
    """Return what the reference spent until it was as good as a search at its end, as a fraction."""
    name = summary.context.reference
    searches = [row for row in summary.rows if any(found.num_seeds for found in row.compute_to_target)]
    targets = searches[0].compute_to_target if searches else []
    header = [f"{target.split} {score_name(target.score)}" for target in targets]

    def cells(row: Row) -> list[Cell]:
        return [_fraction(found) for found in row.compute_to_target]

    notes = [
        f"Compute of {name} until its score was first as good as the search's final score, the target, as a fraction "
        "of all the search's compute: mean over the seeds that reached it, and how many did.",
        "Scores before the end of a run are averaged over fewer noise draws than final ones, on a part of the test "
        "split where that is large, and the first point as good as the final score may be so by chance: read these "
        "fractions as estimates.",
    ]
    return _table(f"Compute to target: what {name} needed for a search's final score", header, searches, cells, notes)


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


def _fraction(found: ComputeToTarget) -> Cell:
    if not found.num_seeds:
        return Cell(DASH)
    return Cell(factor(found.mean) if found.fractions else "never", "", found.counted)


def _share(value: float) -> str:
    return DASH if math.isnan(value) else f"{100 * value:.0f} %"


def _has(found: Mapping[str, Estimate], score: str) -> bool:
    return score in found and bool(found[score].values)
