"""The figures of a report. Importing this package does not load matplotlib."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from crossreg.services.comparison.report.figures.compute import compute
from crossreg.services.comparison.report.figures.differences import differences
from crossreg.services.comparison.report.figures.reliability import reliability
from crossreg.services.comparison.report.figures.schedules import schedules
from crossreg.services.comparison.report.figures.verdict import verdict
from crossreg.services.comparison.report.groups import Group
from crossreg.services.comparison.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CAPTIONS", "compute", "differences", "draw", "reliability", "schedules", "verdict"]

CAPTIONS = {
    "verdict": (
        "Scores on the test split at the end against all the compute that led there ({unit}, logarithmic, one "
        "{reference} run is 1): a point a method, mean over seeds; bars: 95 % interval, of seeds and test examples "
        "together, where there are three seeds or more; points of about one compute stand side by side. NLL is after "
        "temperature scaling where a split was kept for it."
    ),
    "compute": (
        "Scores on the test split against compute ({unit}) of all trials together, logarithmic. Lines: the trial that "
        "led on the regularization split then, mean over seeds; bands: smallest to largest over seeds. Markers: the "
        "chosen model at the end, averaged over more noise draws than the points of the line before it, and on all of "
        "the test split, of which those may have a part. Early parts of a line may lie outside the panel."
    ),
    "differences": (
        "Method minus {reference} on the same seed. Dots: mean; lines: 95 % interval; small ticks: single seeds. Where "
        "the interval excludes zero the colour says for whom. Squares: after temperature scaling of both. An arrowhead "
        "marks an interval that goes on beyond the panel; without a line there is no interval."
    ),
    "schedules": (
        "Hyperparameters, a row each, at most ten: noise scales by layer, first layer on top, then the others; of many "
        "layers some, evenly spaced. Thick and black: what {reference} learned. Thin: the schedules that led to each "
        "member of a search at its end; thick and blue: the schedule of the chosen one. One seed."
    ),
    "reliability": (
        "Accuracy against confidence on the test split, seeds pooled, with the share of all predictions below. "
        "Hatched: how far confidence lies above accuracy, or below it. ECE is the mean over seeds, as in the table."
    ),
}
"""What stands under a figure, by name, in the order of the report."""


def draw(groups: Sequence[Group], summary: Summary) -> dict[str, Figure]:
    """Return the figures that have something to show, by name.

    Args:
        groups: the outcomes.
        summary: their numbers.
    """
    drawn = {
        "verdict": verdict(summary),
        "compute": compute(groups, summary),
        "differences": differences(summary),
        "schedules": schedules(groups, summary),
        "reliability": reliability(groups, summary),
    }
    return {name: figure for name, figure in drawn.items() if figure is not None}
