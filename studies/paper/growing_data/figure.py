"""The figure of the study of growing data."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any

from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

TITLES = {
    "growing": "one run, data grow",
    "fresh": "fresh run at each size",
    "grid": "grid at each size",
    "frozen": "sigma frozen at 10 %",
    "stays": "stays at 10 %",
}


def draw(rows: list[Measurement]) -> Figure:
    """Draw the rows, of which those of the grid are chosen."""
    from crossreg.services.style import log_axis, new_figure

    figure = new_figure(10, 7)
    grid = figure.subplots(2, 2)
    _over_time(grid[0][0], those(rows, arm="growing"), those(rows, arm="stays"))
    _by_size(grid[0][1], rows, lambda row: statistics.geometric_mean(row["sigma"]), "sigma, mean over layers")
    log_axis(grid[0][1], "y", 6)
    without = [row for row in rows if row["arm"] != "stays"]  # it would flatten the others
    _by_size(grid[1][0], without, lambda row: row["nll"], "test NLL")
    _by_size(grid[1][1], without, lambda row: row["ece"], "test ECE")
    handles, labels = grid[0][1].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(TITLES), fontsize=8, frameon=False)
    return figure


def _by_size(axes: Axes, rows: list[Measurement], value: Any, label: str) -> None:
    """Draw means over seeds by the number of images, with every seed as a point."""
    from crossreg.services.style import line_styles, plain

    images = {row["stage"]: row["images"] for row in those(rows, arm="growing")}
    arms = [arm for arm in TITLES if those(rows, arm=arm)]
    # every arm has its look in all panels
    looks = dict(zip(TITLES, line_styles(list(TITLES), "growing"), strict=True))
    for place, arm in enumerate(arms):
        mine, look = those(rows, arm=arm), looks[arm]
        stages = sorted(stage for (stage,) in groups(mine, "stage"))
        means = [statistics.mean(value(row) for row in those(mine, stage=stage)) for stage in stages]
        shift = 0.06 * (place - (len(arms) - 1) / 2)
        axes.plot([s + shift for s in stages], means, **look.line, **look.marks, label=TITLES[arm])
        axes.plot([row["stage"] + shift for row in mine], [value(row) for row in mine], ".", color=look.colour, ms=3)
    axes.set_xticks(sorted(images), [f"{images[stage]:,}" for stage in sorted(images)])
    axes.set(xlabel="training images of the run whose data grow", ylabel=label)
    plain(axes)


def _over_time(axes: Axes, growing: list[Measurement], stays: list[Measurement]) -> None:
    """Draw sigma by layer over steps, the geometric mean over seeds, and dashed that of the run that stays."""
    from crossreg.services.style import GREY, depth_colours, log_axis, plain

    for rows, line in ((growing, "-"), (stays, "--")):
        curves: dict[int, list[list[float]]] = {}
        for row in rows:
            for look in row["curve"]:
                curves.setdefault(look["step"], []).append(look["sigma"])
        steps = sorted(curves)
        if not steps:
            continue
        layers = len(curves[steps[0]][0])
        for layer, colour in enumerate(depth_colours(layers)):
            means = [statistics.geometric_mean([sigma[layer] for sigma in curves[step]]) for step in steps]
            name = {0: "first layer", layers - 1: "last layer"}.get(layer) if line == "-" else None
            axes.plot(steps, means, line, color=colour, linewidth=1.4, label=name)
    axes.plot([], [], "--", color=GREY, label="stays at 10 %")
    for stage, images in sorted({(row["stage"], row["images"]) for row in growing}):
        begin = min((look["step"] for r in those(growing, stage=stage) for look in r["curve"]), default=0)
        axes.axvline(begin, color=GREY, linewidth=0.8, linestyle=":")
        place = axes.get_xaxis_transform()
        axes.text(begin, 1.0, f" {images:,}", transform=place, va="bottom", fontsize=8, color=GREY)
    axes.set(xlabel="step (above: training images)", ylabel="sigma")
    log_axis(axes, "y", 6)
    axes.legend(fontsize=8, framealpha=0.8, edgecolor="none")
    plain(axes)
