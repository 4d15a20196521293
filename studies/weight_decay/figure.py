"""The held-out loss over the grid, and where each estimator ends in it."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from studies.study import Row
from studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

_MARKERS = "osD^vPX*"


def draw(rows: list[Row], summed: list[Row]) -> Figure:
    """Draw, for every model, the grid's mean reg NLL as colours and the learned runs as points; then NLL by compute.

    Args:
        rows: all trainings.
        summed: with the grid as one.
    """
    from services.style import new_figure

    models = [model for (model,) in groups(rows, "model")]
    figure = new_figure(12, 0.6 + 4.2 * len(models))
    for axes, model in zip(figure.subplots(len(models), 2, squeeze=False), models, strict=True):
        _grid(figure, axes[0], model, rows, summed)
        _compute(axes[1], model, summed)
    figure.legend(*axes[1].get_legend_handles_labels(), fontsize=8, ncol=4, loc="outside lower center", frameon=False)
    return figure


def _grid(figure: Figure, axes: Any, model: str, rows: list[Row], summed: list[Row]) -> None:
    cells = [row for row in those(rows, model=model) if row["arm"].startswith("grid ")]
    strengths, sigmas = (sorted({float(row["arm"].split()[place]) for row in cells}) for place in (1, 2))
    values = [
        [statistics.mean(r["reg_nll"] for r in cells if r["arm"] == f"grid {strength:g} {sigma:g}") for sigma in sigmas]
        for strength in strengths
    ]
    shown = axes.pcolormesh(_edges(sigmas), _edges(strengths), values, cmap="viridis_r", alpha=0.8)
    figure.colorbar(shown, ax=axes, label="reg NLL, mean over seeds")
    for (arm, marker), colour in zip(_arms(summed), _colours(), strict=False):
        mine = [row for row in those(summed, model=model, arm=arm) if row["strength"] and row["sigma"]]
        if mine and not arm.startswith("best"):
            axes.plot(
                [row["sigma"] for row in mine], [row["strength"] for row in mine], marker,
                color=colour, markeredgecolor="white", linestyle="none", label=arm,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="sigma (geometric mean over layers)", ylabel="strength of L2")
    axes.set_title(f"{model}: where each run ends", fontsize=10)


def _compute(axes: Any, model: str, summed: list[Row]) -> None:
    from services.style import plain

    for (arm, marker), colour in zip(_arms(summed), _colours(), strict=False):
        mine = those(summed, model=model, arm=arm)
        axes.plot(
            [row["compute"] for row in mine], [row["nll"] for row in mine], marker,
            color=colour, linestyle="none", alpha=0.85, label=arm,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="compute (one plain run = 1)", ylabel="test NLL, temperature-scaled")
    plain(axes)


def _edges(values: list[float]) -> list[float]:
    """Return where cells around these values begin and end on a logarithmic scale."""
    between = [math.sqrt(low * high) for low, high in pairwise(values)]
    return [values[0] ** 2 / between[0], *between, values[-1] ** 2 / between[-1]]


def _arms(summed: list[Row]) -> list[tuple[str, str]]:
    names = [arm for (arm,) in groups(summed, "arm")]
    return [(arm, _MARKERS[place % len(_MARKERS)]) for place, arm in enumerate(names)]


def _colours() -> list[Any]:
    from matplotlib import colormaps

    return list(colormaps["tab10"].colors)  # type: ignore[attr-defined]
