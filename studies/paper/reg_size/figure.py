"""The figure of `studies/paper/reg_size/study.py`: overfitting by k/m, and test NLL by the size of the split."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_MARKS = {"layer": "o", "unit": "s"}


def draw(rows: list[Measurement]) -> Figure:
    """Draw overfitting against sqrt(k / m), and test NLL against the size of the split."""
    from crossreg.services.style import COLOURS, log_axis, new_figure, plain

    figure = new_figure(10, 4.2)
    gaps, tests = figure.subplots(1, 2)
    for colour, (granularity, mark) in zip(COLOURS, _MARKS.items(), strict=False):
        mine = those(rows, granularity=granularity)
        look = {"color": colour, "label": f"a sigma a {granularity}"}
        _mean_line(gaps, mine, "overfitting", mark, **look)
        _mean_line(tests, mine, "nll", mark, **look)
    gaps.axhline(0, color="0.35", linewidth=1)
    gaps.set_yscale("symlog", linthresh=0.01)
    gaps.set(xlabel="sqrt(k / m): learned values, examples of the split", ylabel="overfitting of the split, nats")
    tests.set(xlabel="examples of the split, m", ylabel="test NLL")
    log_axis(tests, "y", 7)
    for axes in (gaps, tests):
        log_axis(axes, "x", 7)
        axes.legend(fontsize=8, frameon=False)
        plain(axes)
    return figure


def _mean_line(axes: Axes, rows: list[Measurement], key: str, mark: str, **look: Any) -> None:
    """Draw a point a run and a line through the means over seeds."""
    by_size = [those(rows, size=size) for (size,) in sorted(groups(rows, "size"))]
    place = [_x(mine[0], key) for mine in by_size]
    axes.plot(place, [statistics.mean(row[key] for row in mine) for mine in by_size], "-", marker=mark, **look)
    axes.plot([_x(r, key) for r in rows], [r[key] for r in rows], mark, color=look["color"], markersize=3, alpha=0.5)


def _x(row: Measurement, key: str) -> float:
    return float((row["k"] / row["size"]) ** 0.5 if key == "overfitting" else row["size"])
