"""The figure of the study of a stream of tasks."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from crossreg.studies.paper.drift.claims import TASKS
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

ARMS = {
    "learned": "learned",
    "none": "no noise",
    "temperature": "temperature alone",
    "fixed": "sigma 0.2",
    "frozen": "frozen after task 1",
}


def draw(rows: list[Measurement]) -> Figure:
    """Draw the rows, a column a stream."""
    from crossreg.services.style import new_figure

    streams = [name for (name,) in groups(rows, "stream")]
    figure = new_figure(5 * len(streams), 9)
    grid = figure.subplots(3, len(streams), squeeze=False)
    for column, name in enumerate(streams):
        mine = those(rows, stream=name)
        _over_time(grid[0][column], [row for row in those(mine, arm="learned") if row["tested"] == row["task"]], name)
        # temperature does not change which class is likeliest
        first = [row for row in mine if row["tested"] == 0 and row["arm"] != "temperature"]
        _by_task(grid[1][column], first, "accuracy", "accuracy on task 1")
        _by_task(grid[2][column], [row for row in mine if row["tested"] == row["task"]], "ece", "ECE, task at hand")
    if streams:
        handles, labels = grid[2][0].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside lower center", ncols=len(ARMS), fontsize=8, frameon=False)
    return figure


def _by_task(axes: Axes, rows: list[Measurement], key: str, label: str) -> None:
    """Draw means over seeds by task, with every seed as a point."""
    from crossreg.services.style import line_styles, plain

    looks = dict(zip(ARMS, line_styles(list(ARMS), "learned"), strict=True))
    arms = [arm for arm in ARMS if those(rows, arm=arm)]
    for place, arm in enumerate(arms):
        mine, look = those(rows, arm=arm), looks[arm]
        tasks = sorted(task for (task,) in groups(mine, "task"))
        shift = 1 + 0.06 * (place - (len(arms) - 1) / 2)
        means = [statistics.mean(row[key] for row in those(mine, task=task)) for task in tasks]
        axes.plot([task + shift for task in tasks], means, **look.line, **look.marks, label=ARMS[arm])
        axes.plot([row["task"] + shift for row in mine], [row[key] for row in mine], ".", color=look.colour, ms=3)
    axes.set_xticks(range(1, TASKS + 1))
    axes.set(xlabel="after task", ylabel=label)
    plain(axes)


def _over_time(axes: Axes, rows: list[Measurement], title: str) -> None:
    """Draw sigma by layer over steps, geometric means over seeds, and held-out loss on an axis of its own."""
    from crossreg.services.style import LIGHT_GREY, depth_colours, log_axis, plain

    curves: dict[int, list[dict[str, Any]]] = {}
    for row in rows:
        for look in row["curve"]:
            curves.setdefault(look["step"], []).append(look)
    steps = sorted(curves)
    if not steps:
        return
    for task in range(1, TASKS):
        begin = min(look["step"] for row in those(rows, task=task) for look in row["curve"])
        axes.axvline(begin, color=LIGHT_GREY, linewidth=0.8, linestyle=":")
    losses = axes.twinx()
    mean = [statistics.mean(look["loss"] for look in curves[step]) for step in steps]
    losses.plot(steps, mean, color=LIGHT_GREY, linewidth=1.0, zorder=0)
    losses.set_ylabel("held-out loss (grey)", fontsize=8)
    axes.set_zorder(losses.get_zorder() + 1)
    axes.patch.set_visible(False)
    sigmas = [[look["sigma"] for look in curves[step]] for step in steps]
    layers = len(sigmas[0][0])
    for layer, colour in enumerate(depth_colours(layers)):
        means = [statistics.geometric_mean([sigma[layer] for sigma in at]) for at in sigmas]
        label = {0: "first layer", layers - 1: "last layer"}.get(layer)
        axes.plot(steps, means, color=colour, linewidth=1.4, label=label)
    axes.set(xlabel="step", ylabel="sigma", title=title)
    log_axis(axes, "y", 6)
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")
    plain(axes)
