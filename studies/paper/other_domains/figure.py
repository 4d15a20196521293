"""The figure of `studies/paper/other_domains/study.py`: every arm against the one with nothing, by data set."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from crossreg.studies.claims import interval
from crossreg.studies.paper.other_domains.claims import ARMS, NONE, apart, chosen
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_PANELS = (("nll", 1.0, "NLL"), ("nll_scaled", 1.0, "NLL, all scaled"), ("accuracy", 100.0, "accuracy, points"))
_SPREAD = 0.6  # of the arms of a data set, of the distance to the next


def draw(rows: list[Measurement]) -> Figure:
    """Draw the paired difference to the arm with nothing and its 95 % interval, a panel a score."""
    from crossreg.services.style import COLOURS, new_figure

    rows = chosen(rows)
    sets = groups(rows, "data", "network")
    figure = new_figure(11, 1.6 + 0.55 * len(sets))
    panels = figure.subplots(1, len(_PANELS), sharey=True)
    arms = [arm for arm in ARMS if arm != NONE]
    for axes, (key, scale, title) in zip(panels, _PANELS, strict=True):
        for place, arm in enumerate(arms):
            offset = _SPREAD * (place / (len(arms) - 1) - 0.5)
            _points(axes, rows, arm, key, scale, offset, COLOURS[place])
        axes.axvline(0, color="0.35", linewidth=1)
        axes.set(title=f"{title}, against nothing")
        axes.locator_params(axis="x", nbins=5)
        _plain_rows(axes, len(sets))
    panels[0].set_yticks(range(len(sets)), [data if _alone(sets, data) else f"{data}\n{net}" for data, net in sets])
    panels[0].invert_yaxis()
    handles, labels = panels[0].get_legend_handles_labels()
    figure.legend(handles, labels, loc="outside lower center", ncols=len(arms), frameon=False)
    return figure


def _alone(sets: list[tuple[str, str]], data: str) -> bool:
    return sum(name == data for name, _ in sets) == 1


def _points(axes: Axes, rows: list[Measurement], arm: str, key: str, scale: float, offset: float, colour: str) -> None:
    """Draw a point a data set, with its interval where there are seeds enough."""
    places, means, halves = [], [], []
    for place, (data, network) in enumerate(groups(rows, "data", "network")):
        if values := apart(rows, data, network, arm, NONE, key):
            mean, half = interval(values)
            places.append(place + offset)
            means.append(scale * mean)
            halves.append(scale * half if math.isfinite(half) else 0.0)
    axes.errorbar(means, places, xerr=halves, fmt="o", color=colour, markersize=4, capsize=2, linewidth=1.2, label=arm)


def _plain_rows(axes: Axes, count: int) -> None:
    """Set data sets apart by bands in place of lines."""
    from crossreg.services.style import plain

    plain(axes, "x")
    for place in range(0, count, 2):
        axes.axhspan(place - 0.5, place + 0.5, color="0.96", zorder=0)
    axes.set_ylim(-0.5, count - 0.5)
