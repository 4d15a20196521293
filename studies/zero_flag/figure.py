"""Leads of the zero-flag run over the search, pair by pair."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import LOSES, WINS, new_figure, plain
from crossreg.studies.zero_flag.summed import Summed

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

_LINEAR = 5
"""Points or percent up to which the first axis is linear; beyond, where single pairs lie, it is logarithmic."""
_TICKS = (-40, -10, -5, -2, 0, 2, 5, 10)


def draw(pairs: list[Summed]) -> Figure:
    """Draw the lead of every pair with its seeds: in accuracy or RMSE, and in NLL."""
    figure = new_figure(9, 1.2 + 0.32 * len(pairs))
    first, second = figure.subplots(1, 2, sharey=True)
    for axes, key, label in (
        (first, "leads", "lead in accuracy (points) or RMSE (%),\nlogarithmic beyond 5"),
        (second, "nll_leads", "lead in NLL (nats)"),
    ):
        for row, one in enumerate(reversed(pairs)):
            values = getattr(one, key)
            if values:
                colour = WINS if one.won else LOSES
                axes.plot(values, [row] * len(values), "o", color=colour, markersize=3, alpha=0.5)
                axes.plot([statistics.mean(values)], [row], "D", color=colour, markersize=6)
        axes.axvline(0, color="0.4", linewidth=0.8)
        axes.set_xlabel(label)
        plain(axes)
    lowest, highest = first.get_xlim()
    first.set_xscale("symlog", linthresh=_LINEAR, linscale=1)
    first.set_xticks(_TICKS, [f"{tick:g}" for tick in _TICKS], minor=False)
    first.set_xlim(1.1 * lowest, highest)
    first.minorticks_off()
    names = [f"{one.pair}{' *' if one.untouched else ''}" for one in reversed(pairs)]
    first.set_yticks(range(len(pairs)), names)
    return figure
