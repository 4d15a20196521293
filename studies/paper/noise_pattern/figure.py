"""The figure of `studies/paper/noise_pattern/study.py`: sigma by layer over time with the gap, and by depth."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.studies.paper.noise_pattern.claims import OF_NETWORK, gap
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_TITLES = {"noise alone": "noise alone", "learned": "noise and temperature"}


def draw(rows: list[Measurement]) -> Figure:
    """Draw sigma over time and at the end, a column a network."""
    from crossreg.services.style import new_figure

    figure = new_figure(10, 9)
    grid = figure.subplots(3, 2)
    for column, network in enumerate(OF_NETWORK):
        for line, (arm, title) in enumerate(_TITLES.items()):
            if mine := those(rows, network=network, arm=arm):
                _over_time(grid[line][column], mine, f"{network}, {title}")
        _by_depth(grid[2][column], those(rows, network=network), network)
    return figure


def _by_depth(axes: Axes, rows: list[Measurement], network: str) -> None:
    """Draw sigma at the end by layer, a line a seed."""
    from crossreg.services.style import COLOURS, log_axis, plain

    for colour, (arm, title) in zip(COLOURS, _TITLES.items(), strict=False):
        for index, row in enumerate(those(rows, arm=arm)):
            sigma = row["curve"][-1]["sigma"]
            label = None if index else title
            axes.plot(range(1, len(sigma) + 1), sigma, "o-", color=colour, markersize=3, alpha=0.6, label=label)
    if some := [row for row in those(rows, arm="learned") if any(row["around"])]:
        for place, around in enumerate(some[0]["around"], start=1):
            if not around:
                axes.axvspan(place - 0.4, place + 0.4, color="0.9", zorder=0)
        axes.plot([], [], "s", color="0.85", label="no skip goes round")
    axes.set(xlabel=f"{network}: layer", ylabel="sigma at the end")
    log_axis(axes, "y", 6)
    axes.legend(fontsize=7, frameon=False)
    plain(axes)


def _over_time(axes: Axes, rows: list[Measurement], title: str) -> None:
    """Draw sigma by layer over epochs, the mean over seeds, and the generalization gap on an axis of its own."""
    from crossreg.services.style import GREY, depth_colours, log_axis, plain

    curves = [row["curve"] for row in rows]
    epochs = [look["epoch"] for look in curves[0]]
    layers = len(curves[0][0]["sigma"])
    for layer, colour in enumerate(depth_colours(layers)):
        means = [statistics.geometric_mean([curve[k]["sigma"][layer] for curve in curves]) for k in range(len(epochs))]
        axes.plot(epochs, means, color=colour, linewidth=1.2)
    gaps = axes.twinx()
    gaps.plot(
        epochs,
        [100 * statistics.mean(gap(curve[k]) for curve in curves) for k in range(len(epochs))],
        "--",
        color=GREY,
    )
    gaps.set_ylabel("train − test, points (dashed)", fontsize=8)
    axes.set(xlabel="epoch", ylabel="sigma, by depth", title=title)
    log_axis(axes, "y", 6)
    plain(axes)
