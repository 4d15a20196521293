"""The picture that a report opens with: where each method ended, in score and compute."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.estimates import Estimate, larger_is_better
from crossreg.services.comparison.report.numbers import score_name
from crossreg.services.comparison.report.rows import Row
from crossreg.services.comparison.report.summary import Summary
from crossreg.services.style import line_styles, log_axis, new_figure, plain, shorten

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["verdict"]

_NEAR, _STEP = 1.1, 1.07  # factors of compute: points nearer than the first stand the second apart


def verdict(summary: Summary) -> Figure | None:
    """Draw accuracy and NLL (or the first two scores) against compute, a point a method with its interval."""
    rows = [row for row in summary.rows if row.compute_ratio > 0]
    names = [name for name in ("accuracy", "nll", "rmse", *summary.scores) if name in summary.scores][:2]
    names = list(dict.fromkeys(names))
    if len(rows) < 2 or not any(row.scores[name].values for row in rows for name in names):
        return None
    figure = new_figure(4.6 * len(names) + 0.4, 3.6 + 0.25 * math.ceil(len(rows) / 3))
    panels: Any = figure.subplots(1, len(names), squeeze=False)[0]
    styles = line_styles([row.method for row in rows], summary.context.reference)
    places = _apart([row.compute_ratio for row in rows])
    for axes, score in zip(panels, names, strict=True):
        scale = 100.0 if score == "accuracy" else 1.0
        for row, style, place in zip(rows, styles, places, strict=True):
            found = _shown(row, score)
            if found.values:
                axes.errorbar(
                    [place], [scale * found.mean], yerr=_bars(found, scale), color=style.colour,
                    markerfacecolor=style.colour if style.filled else "white", marker=style.marker, markersize=7,
                    capsize=3, linestyle="none", label=shorten(row.label, 28),
                )  # fmt: skip
        axes.margins(x=0.15)
        log_axis(axes, "x", 6)
        better = "higher" if larger_is_better(score) else "lower"
        unit = " (%)" if score == "accuracy" else ", temperature-scaled where it can be" if score == "nll" else ""
        axes.set_title(f"test {score_name(score)}{unit}; {better} is better", fontsize="small", loc="left")
        axes.set_xlabel(f"compute, one {summary.context.reference} run = 1")
        plain(axes)
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=3, frameon=False, fontsize="small")
    return figure


def _apart(ratios: list[float]) -> list[float]:
    """Return places at which points of about one compute stand side by side, around where they belong."""
    order = sorted(range(len(ratios)), key=lambda index: ratios[index])
    groups: list[list[int]] = []
    for index in order:
        if groups and ratios[index] <= _NEAR * ratios[groups[-1][0]]:
            groups[-1].append(index)
        else:
            groups.append([index])
    places = list(ratios)
    for group in groups:
        for place, index in enumerate(sorted(group)):
            places[index] *= _STEP ** (place - (len(group) - 1) / 2)
    return places


def _shown(row: Row, score: str) -> Estimate:
    """Return the estimate to draw: of NLL the one after temperature scaling, so that calibration alone wins nothing."""
    scaled = row.scaled.get(score)
    return scaled if score == "nll" and scaled is not None and scaled.values else row.scores[score]


def _bars(found: Estimate, scale: float) -> list[list[float]] | None:
    if math.isnan(found.low):
        return None
    return [[scale * (found.mean - found.low)], [scale * (found.high - found.mean)]]
