"""Accuracy of every estimator for every kind of rho, and what an update costs."""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from crossreg.services.style import WINS, new_figure, plain
from crossreg.studies.hypergradient.kinds import KINDS
from crossreg.studies.hypergradient.study import COST, ESTIMATORS, name_of_cost
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(rows: list[Measurement]) -> Figure:
    """Draw a map of cosine and error, and bars of time and memory."""
    figure = new_figure(12.5, 7.2)
    parts: Any = figure.subfigures(2, 1, height_ratios=(1.7, 1))
    upper, lower = parts
    _draw_map(upper.subplots(), rows)
    time, memory = lower.subplots(1, 2, sharey=True)
    _draw_bars(time, rows, lambda row: row["time_ratio"], "time of an update (steps of theta)")
    _draw_bars(memory, rows, lambda row: row["bytes"] / 1e6, "peak memory of an update (MB)")
    costs = those(rows, kind=COST)
    if costs:
        theta = statistics.median(row["theta_bytes"] for row in costs) / 1e6
        memory.axvline(theta, color="0.2", linewidth=1, linestyle="--", label="a step of theta")
        time.axvline(1, color="0.2", linewidth=1, linestyle="--", label="a step of theta")
        time.legend(fontsize=8, frameon=False)
    return figure


def _draw_map(axes: Axes, rows: list[Measurement]) -> None:
    """Draw errors as shades, with cosine (or how often the sign is right) and error in each cell."""
    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    shades = np.full((len(kinds), len(ESTIMATORS)), np.nan)
    for i, kind in enumerate(kinds):
        for j, estimator in enumerate(ESTIMATORS):
            mine = those(rows, kind=kind, estimator=estimator)
            cosines = [row["cosine"] for row in mine if row["cosine"] is not None]
            errors = [row["error"] for row in mine if row["error"] is not None]
            if not cosines:
                axes.text(j, i, "refused", ha="center", va="center", fontsize=8, color="0.3")
                continue
            right = f"{sum(value > 0 for value in cosines)} of {len(cosines)}"
            first = right if mine[0]["count"] == 1 else f"{statistics.median(cosines):.3f}"
            if errors:
                shades[i, j] = np.log10(min(max(statistics.median(errors), 1e-8), 1))
            second = f"\n{statistics.median(errors):.1g}" if errors else ""
            colour = "white" if errors and shades[i, j] < -5 else "black"
            axes.text(j, i, first + second, ha="center", va="center", fontsize=8, color=colour)
    image = axes.imshow(shades, aspect="auto", cmap="Blues_r", vmin=-8, vmax=0)
    bar = axes.figure.colorbar(image, ax=axes, ticks=range(-8, 1, 2), pad=0.01)
    bar.ax.set_yticklabels([f"1e{exponent}" if exponent else "1 or more" for exponent in range(-8, 1, 2)], fontsize=8)
    bar.set_label("relative error (median)", fontsize=9)
    axes.set_xticks(range(len(ESTIMATORS)), [name.replace(", ", ",\n") for name in ESTIMATORS], fontsize=9)
    axes.set_yticks(range(len(kinds)), kinds, fontsize=9)
    axes.tick_params(length=0)
    axes.spines[:].set_visible(False)
    axes.set_title(
        "above: cosine with the truth (median), or of one number how often the sign is right; below: relative error",
        fontsize=9, loc="left",
    )  # fmt: skip


def _draw_bars(axes: Axes, rows: list[Measurement], value: Callable[[Measurement], float], label: str) -> None:
    names = list(ESTIMATORS)[::-1]
    for place, name in enumerate(names):
        values = [value(row) for row in those(rows, kind=COST, estimator=name)]
        if values:
            middle = statistics.median(values)
            axes.barh(place, middle, color=WINS, height=0.6)
            axes.text(middle * 1.05, place, f"{middle:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [name_of_cost(name) for name in names], fontsize=9)
    axes.set(xscale="log", xlabel=label)
    axes.margins(x=0.12)
    plain(axes, "x")
