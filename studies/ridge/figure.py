"""Excess loss and learned lambda of ridge regressions against the condition number."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import LOSES, WINS, new_figure, plain
from crossreg.studies.study import FIXED_POINT, Measurement
from crossreg.studies.summing import those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_LOOKS = ((LOSES, FIXED_POINT, True), (LOSES, "direct", False), (WINS, "implicit", True))
"""Colour, estimator, and whether its markers are filled and a line goes through their medians."""


def draw(rows: list[Measurement]) -> Figure:
    """Draw excess loss and lambda against the condition number."""
    figure = new_figure(9, 4.2)
    loss, strength = figure.subplots(1, 2)
    for noise, line, marker in zip(sorted({row["noise"] for row in rows}), ("-", "--"), ("o", "s"), strict=False):
        for colour, estimator, filled in _LOOKS:
            mine = those(rows, estimator=estimator, noise=noise)
            label = f"{estimator}, noise {noise:g}"
            for axes, key, floor in ((loss, "excess", 1e-9), (strength, "ratio", 1e-6)):
                axes.plot(
                    [row["condition"] for row in mine], [max(row[key], floor) for row in mine], marker,
                    color=colour, markersize=4, linestyle="none", fillstyle="full" if filled else "none",
                    alpha=0.6, label=None if filled else label,
                )  # fmt: skip
                if filled:
                    _draw_medians(axes, mine, key, floor, line, colour, label)
    loss.set_ylabel("reg loss above the optimum (relative)")
    loss.axhline(1e-3, color="0.4", linewidth=0.8, linestyle=":")
    strength.set_ylabel("learned lambda / best lambda")
    strength.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
    for axes in (loss, strength):
        axes.set(xscale="log", yscale="log", xlabel="condition number of the covariance")
        plain(axes)
    figure.legend(*loss.get_legend_handles_labels(), fontsize=8, ncol=3, loc="outside lower center", frameon=False)
    return figure


def _draw_medians(
    axes: Axes, rows: list[Measurement], key: str, floor: float, line: str, colour: str, label: str
) -> None:
    conditions = sorted({row["condition"] for row in rows})
    medians = [max(statistics.median(row[key] for row in those(rows, condition=c)), floor) for c in conditions]
    axes.plot(conditions, medians, line, color=colour, label=label)
