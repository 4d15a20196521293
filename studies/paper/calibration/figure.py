"""Calibration of every arm: at the end, while training, on corrupted images, and with another regularization split."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import COLOURS, new_figure, plain
from crossreg.studies.claims import interval
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_ARMS = ("none", "temperature", "fixed noise", "MC dropout", "ensemble", "cross-reg", "noise alone")
_COLOUR = dict(zip(_ARMS, COLOURS, strict=False))


def draw(rows: list[Measurement]) -> Figure:
    """Draw six panels: ECE and NLL at the end, over the training, and by severity of corruption; see the module."""
    from matplotlib.lines import Line2D

    figure = new_figure(12, 12)
    grid = figure.subplots(3, 2)
    clean = those(rows, reg="clean")
    for axes, key, name in ((grid[0][0], "ece", "ECE"), (grid[0][1], "nll", "NLL")):
        _at_the_end(axes, clean, key, name)
    for axes, key, name in ((grid[1][0], "ece", "ECE"), (grid[1][1], "nll", "NLL")):
        _by_severity(axes, clean, key, name)
    _over_time(grid[2][0], clean)
    _other_reg(grid[2][1], rows)
    handles = [Line2D([], [], color=_COLOUR[arm], marker="o", label=arm) for arm in _arms(clean)]
    figure.legend(handles=handles, loc="outside lower center", ncols=len(_ARMS), frameon=False)
    return figure


def _arms(rows: list[Measurement]) -> list[str]:
    return [arm for arm in _ARMS if those(rows, arm=arm)]


def _at_the_end(axes: Axes, rows: list[Measurement], key: str, name: str) -> None:
    """Draw a score of every arm with its interval, as it is (filled) and scaled (hollow)."""
    arms = _arms(rows)
    for place, arm in enumerate(arms):
        for shift, suffix, fill in ((0.12, "", _COLOUR[arm]), (-0.12, "_scaled", "white")):
            mean, half = interval([row[key + suffix] for row in those(rows, arm=arm)])
            error = [half] if half < float("inf") else None
            axes.errorbar(
                [mean], [place + shift], xerr=error, fmt="o", color=_COLOUR[arm], markersize=6, markerfacecolor=fill
            )
    axes.set_yticks(range(len(arms)), arms)
    axes.invert_yaxis()
    axes.set(xlabel=f"{name} on test images", title="filled: as they are; hollow: scaled on the reg split")
    plain(axes)


def _by_severity(axes: Axes, rows: list[Measurement], key: str, name: str) -> None:
    """Draw a score over severities, the mean over corruptions and seeds; severity 0 is the clean test split."""
    for arm in _arms(rows):
        mine = [row for row in those(rows, arm=arm) if row["shift"]]
        if not mine:
            continue
        looks = [look for row in mine for look in row["shift"]]
        severities = sorted({look["severity"] for look in looks})
        means = [statistics.mean(look[key] for look in looks if look["severity"] == one) for one in severities]
        clean = statistics.mean(row[key] for row in mine)
        axes.plot([0, *severities], [clean, *means], "o-", color=_COLOUR[arm], markersize=4)
    axes.set(xlabel="severity (0: as they are)", ylabel=name, title="blur, noise, contrast and JPEG, their mean")
    plain(axes)


def _over_time(axes: Axes, rows: list[Measurement]) -> None:
    """Draw ECE on test images over epochs, the mean over seeds."""
    for arm in _arms(rows):
        curves = [row["curve"] for row in those(rows, arm=arm) if row["curve"]]
        if not curves:
            continue
        # the untrained network says nothing, and is well calibrated so
        epochs = [look["epoch"] for look in curves[0]][1:]
        means = [statistics.mean(curve[k + 1]["test/ece"] for curve in curves) for k in range(len(epochs))]
        axes.plot(epochs, means, "o-", color=_COLOUR[arm], markersize=3)
    axes.set(xlabel="epoch", ylabel="ECE on test images, while training")
    plain(axes)


def _other_reg(axes: Axes, rows: list[Measurement]) -> None:
    """Draw ECE on the clean test split by what the regularization split was."""
    shifted = [arm for (arm,) in groups([row for row in rows if row["reg"] != "clean"], "arm")]
    kinds = [reg for (reg,) in groups(rows, "reg")]
    for arm in (one for one in _ARMS if one in shifted):
        places, means = [], []
        for place, reg in enumerate(kinds):
            if mine := those(rows, arm=arm, reg=reg):
                places.append(place)
                means.append(statistics.mean(row["ece"] for row in mine))
                axes.plot([place] * len(mine), [row["ece"] for row in mine], "o", color=_COLOUR[arm], alpha=0.35)
        axes.plot(places, means, "D--", color=_COLOUR[arm])
    axes.set_xticks(range(len(kinds)), kinds)
    axes.set(xlabel="regularization split", ylabel="ECE on clean test images")
    if shifted:
        plain(axes)
