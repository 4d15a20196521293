"""Excess loss and norm that each estimator reaches on every LASSO problem."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossreg.services.style import GREY, LOSES, WINS, new_figure, plain
from crossreg.studies.lasso.study import SAME_SPLIT
from crossreg.studies.study import FIXED_POINT, Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["draw"]

_LOOKS = ((WINS, "implicit", "o"), (LOSES, "direct", "s"), (LOSES, FIXED_POINT, "x"), (GREY, SAME_SPLIT, "^"))
"""Colour, estimator and marker, from left to right."""


def draw(rows: list[Measurement]) -> Figure:
    """Draw the excess loss and the norm of every problem."""
    problems = [problem for (problem,) in groups(rows, "problem")]
    figure = new_figure(10, 4.4)
    loss, norm = figure.subplots(1, 2)
    for shift, (colour, estimator, marker) in enumerate(_LOOKS):
        for axes, key, floor in ((loss, "excess", 1e-8), (norm, "norm", 0.0)):
            mine = those(rows, estimator=estimator)
            axes.plot(
                [problems.index(row["problem"]) + 0.16 * (shift - 1.5) for row in mine],
                [max(row[key], floor) for row in mine],
                marker, color=colour, linestyle="none", markersize=5, alpha=0.75,
                fillstyle="none" if estimator == "direct" else "full", label=estimator,
            )  # fmt: skip
    loss.set(yscale="log", ylabel="reg loss above the best of the path (relative)")
    norm.set(ylabel="L1 norm / that of the best")
    norm.axhline(1, color="0.4", linewidth=0.8, linestyle=":")
    for axes in (loss, norm):
        axes.set_xticks(range(len(problems)), [str(problem) for problem in problems], rotation=30, ha="right")
        plain(axes)
    figure.legend(*loss.get_legend_handles_labels(), fontsize=8, ncol=4, loc="outside lower center", frameon=False)
    return figure
