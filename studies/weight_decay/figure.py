"""The reg NLL over the grid, where each estimator ends in it, and what that costs."""

from __future__ import annotations

import math
import statistics
from itertools import pairwise
from typing import TYPE_CHECKING, Any

from crossreg.services.style import COLOURS, new_figure, plain
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those
from crossreg.studies.weight_decay.study import GRID, arm_of_grid, cell_of_grid, is_of_grid

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_MARKERS = "osD^vPX*"


def draw(rows: list[Measurement], summed: list[Measurement]) -> Figure:
    """Draw, for every model, the mean reg NLL over the grid with the learned runs as points; beside it NLL by compute.

    Args:
        rows: all trainings.
        summed: the same with the best of the grid in place of its runs, see `WeightDecay.summed`.
    """
    models = [model for (model,) in groups(rows, "model")]
    figure = new_figure(12, 0.6 + 4.2 * len(models))
    for axes, model in zip(figure.subplots(len(models), 2, squeeze=False), models, strict=True):
        _grid(figure, axes[0], model, rows, summed)
        _compute(axes[1], model, summed)
    figure.legend(*axes[1].get_legend_handles_labels(), fontsize=8, ncol=4, loc="outside lower center", frameon=False)
    return figure


def _grid(figure: Figure, axes: Axes, model: str, rows: list[Measurement], summed: list[Measurement]) -> None:
    runs = [row for row in those(rows, model=model) if is_of_grid(row["arm"])]
    cells = [cell_of_grid(row["arm"]) for row in runs]
    strengths, sigmas = (sorted({cell[place] for cell in cells}) for place in (0, 1))
    values = [
        [statistics.mean(row["reg_nll"] for row in those(runs, arm=arm_of_grid(strength, sigma))) for sigma in sigmas]
        for strength in strengths
    ]
    shown = axes.pcolormesh(_edges(sigmas), _edges(strengths), values, cmap="viridis_r", alpha=0.8)
    figure.colorbar(shown, ax=axes, label="reg NLL, mean over seeds")
    for arm, look in _looks(summed).items():
        mine = [row for row in those(summed, model=model, arm=arm) if row["strength"] and row["sigma"]]
        if mine and arm != GRID:
            axes.plot(
                [row["sigma"] for row in mine], [row["strength"] for row in mine],
                **look, markeredgecolor="white", linestyle="none", label=arm,
            )  # fmt: skip
    axes.set(xscale="log", yscale="log", xlabel="sigma (geometric mean over layers)", ylabel="strength of L2")
    axes.set_title(f"{model}: where each run ends", fontsize=10)


def _compute(axes: Axes, model: str, summed: list[Measurement]) -> None:
    for arm, look in _looks(summed).items():
        mine = those(summed, model=model, arm=arm)
        axes.plot(
            [row["compute"] for row in mine], [row["nll"] for row in mine],
            **look, linestyle="none", alpha=0.85, label=arm,
        )  # fmt: skip
    axes.set(xscale="log", xlabel="compute (one plain run = 1)", ylabel="test NLL, temperature-scaled")
    plain(axes)


def _edges(values: list[float]) -> list[float]:
    """Return the edges of cells around these values on a logarithmic scale: one more than values."""
    between = [math.sqrt(low * high) for low, high in pairwise(values)]
    return [values[0] ** 2 / between[0], *between, values[-1] ** 2 / between[-1]]


def _looks(summed: list[Measurement]) -> dict[str, dict[str, Any]]:
    """Return colour and marker of every arm, as Matplotlib's options."""
    return {
        arm: {"color": COLOURS[place % len(COLOURS)], "marker": _MARKERS[place % len(_MARKERS)]}
        for place, (arm,) in enumerate(groups(summed, "arm"))
    }
