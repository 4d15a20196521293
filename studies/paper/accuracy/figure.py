"""Accuracy of every arm in both settings, and over compute."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import COLOURS, legend_beside, log_axis, new_figure, plain
from crossreg.studies.claims import interval
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_ARMS = ("none", "none, all data", "fixed noise", "dropout", "cross-reg", "noise alone", "PBT", "PBT, same compute")
_COLOUR = dict(zip(_ARMS, COLOURS, strict=True))


def draw(rows: list[Measurement]) -> Figure:
    """Draw accuracy of every arm with its interval, and over FLOPs, a row a setting."""
    settings = [setting for (setting,) in groups(rows, "setting")]
    figure = new_figure(11, 3.8 * len(settings))
    grid = figure.subplots(len(settings), 2, squeeze=False)
    for line, setting in zip(grid, settings, strict=True):
        mine = those(rows, setting=setting)
        _by_arm(line[0], mine, setting)
        _over_compute(line[1], mine, setting)
    return figure


def _by_arm(axes: Axes, rows: list[Measurement], setting: str) -> None:
    arms = [arm for arm in _ARMS if those(rows, arm=arm)]
    for place, arm in enumerate(arms):
        values = [100 * row["accuracy"] for row in those(rows, arm=arm)]
        mean, half = interval(values)
        axes.plot(values, [place] * len(values), "o", color=_COLOUR[arm], markersize=3, alpha=0.5)
        error = [half] if half < float("inf") else None
        axes.errorbar([mean], [place], xerr=error, fmt="D", color=_COLOUR[arm], markersize=5)
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set(xlabel="test accuracy, %", title=setting)
    plain(axes)


def _over_compute(axes: Axes, rows: list[Measurement], setting: str) -> None:
    for arm in (one for one in _ARMS if those(rows, arm=one)):
        mine = those(rows, arm=arm)
        flops = statistics.mean(row["flops"] for row in mine)
        accuracy = 100 * statistics.mean(row["accuracy"] for row in mine)
        axes.plot([flops], [accuracy], "o", alpha=0.8, color=_COLOUR[arm], markersize=8, label=arm)
    axes.set(xlabel="FLOPs, with all that was tried to choose", ylabel="test accuracy, %", title=setting)
    log_axis(axes, "x", 4, "{x:.0e}")
    legend_beside(axes, fontsize=8)
    plain(axes)
