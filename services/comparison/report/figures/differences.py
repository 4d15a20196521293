"""Paired differences to the reference as dots with intervals."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.estimates import Difference, larger_is_better
from crossreg.services.comparison.report.numbers import score_name
from crossreg.services.comparison.report.rows import Row
from crossreg.services.comparison.report.summary import Summary
from crossreg.services.style import GREY, LOSES, WINS, new_figure, plain, shorten

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["differences"]

_COLOURS = {"wins": WINS, "loses": LOSES}


def differences(summary: Summary) -> Figure | None:
    """Draw a panel for each of accuracy, NLL and ECE (or what there is); None without paired differences."""
    rows = [row for row in summary.rows if row.differences]
    names = [name for name in summary.scores if name != "brier"][:3]
    if not names or not any(paired.values for row in rows for paired in row.differences.values()):
        return None
    figure = new_figure(3.3 * len(names) + 1.6, 1.7 + 0.46 * len(rows))
    figure.get_layout_engine().set(wspace=0.05)  # type: ignore[union-attr,call-arg]
    panels = figure.subplots(1, len(names), sharey=True, squeeze=False)[0]
    for axes, score in zip(panels, names, strict=True):
        scale = 100.0 if score == "accuracy" else 1.0
        scaled_too = score != "accuracy"
        shown = [paired for row in rows for paired in _both(row, score, scaled_too)]
        low, high = _span(shown, scale)
        axes.set_xlim(low, high)
        axes.axvline(0, color=GREY, linewidth=1)
        for place, row in enumerate(rows):
            pair = _both(row, score, scaled_too)
            for paired, offset, marker in zip(pair, (-0.16, 0.16) if len(pair) == 2 else (0.0,), "os", strict=False):
                _draw(axes, paired, place + offset, scale, marker)
        axes.set_xlabel(f"{score_name(score)} difference" + (" (points)" if score == "accuracy" else ""))
        left, right = (summary.context.reference, "method")
        if not larger_is_better(score):
            left, right = right, left
        axes.set_title(f"← {shorten(left, 14)} better", loc="left", fontsize="small", color=GREY)
        axes.set_title(f"{shorten(right, 14)} better →", loc="right", fontsize="small", color=GREY)
        plain(axes, "x")
        axes.tick_params(axis="y", length=0)
        axes.locator_params(axis="x", nbins=5)
    panels[0].set_yticks(range(len(rows)), [shorten(row.label, 30) for row in rows])
    panels[0].set_ylim(len(rows) - 0.5, -0.5)
    _legend(figure, summary)
    return figure


def _both(row: Row, score: str, scaled_too: bool) -> list[Difference]:
    """Return the difference, and after temperature scaling where there is one."""
    found = [row.differences[score]]
    if scaled_too and row.scaled_differences[score].values:
        found.append(row.scaled_differences[score])
    return found


def _span(shown: Sequence[Difference], scale: float) -> tuple[float, float]:
    """Return limits that show every seed, and intervals as far as they do not dwarf that."""
    seeds = [scale * value for paired in shown for value in paired.values.values()] + [0.0]
    low, high = min(seeds), max(seeds)
    width = (high - low) or 1.0
    ends = [scale * end for paired in shown for end in (paired.low, paired.high) if math.isfinite(end)] + seeds
    low, high = max(min(ends), low - 0.75 * width), min(max(ends), high + 0.75 * width)
    margin = 0.06 * (high - low) or 1.0
    return low - margin, high + margin


def _draw(axes: Axes, paired: Difference, y: float, scale: float, marker: str) -> None:
    if not paired.values:
        axes.text(0, y, "  no scores", color=GREY, va="center", fontsize="small")
        return
    colour = _COLOURS.get(paired.verdict, GREY)
    values = [scale * value for value in paired.values.values()]
    if len(values) > 1:
        axes.plot(values, [y] * len(values), linestyle="none", marker="|", color=colour, markersize=7, alpha=0.8)
    if math.isfinite(paired.low):
        left, right = axes.get_xlim()
        low, high = scale * paired.low, scale * paired.high
        axes.plot([max(low, left), min(high, right)], [y, y], color=colour, linewidth=1.8, solid_capstyle="butt")
        inset = 0.012 * (right - left)
        for end, beyond, arrow in ((left + inset, low < left, "<"), (right - inset, high > right, ">")):
            if beyond:
                axes.plot([end], [y], marker=arrow, color=colour, markersize=6)
    filled = paired.excludes_zero
    axes.plot(
        [scale * paired.mean], [y], marker=marker, markersize=7 if marker == "o" else 6, zorder=4, linestyle="none",
        markerfacecolor=colour if filled else "white", markeredgecolor=colour, markeredgewidth=1.6,
    )  # fmt: skip


def _legend(figure: Figure, summary: Summary) -> None:
    from matplotlib.lines import Line2D

    name = summary.context.reference

    def mark(label: str, colour: str, filled: bool, marker: str = "o", line: Any = "-") -> Line2D:
        return Line2D([], [], color=colour, marker=marker, markerfacecolor=colour if filled else "white",
                      markeredgecolor=colour, linestyle=line, linewidth=1.8, label=label)  # fmt: skip

    entries = [
        mark(f"{name} wins", WINS, True),
        mark(f"{name} loses", LOSES, True),
        mark("undecided, or too few seeds", GREY, False),
    ]
    if any(paired.values for row in summary.rows for paired in row.scaled_differences.values()):
        entries.append(mark("raw", GREY, False, line="none"))
        entries.append(mark("temperature-scaled", GREY, False, "s", line="none"))
    figure.legend(handles=entries, loc="outside lower center", ncols=5, frameon=False, fontsize="small")
