"""A smoothing spline, learned lambdas, and errors against those of generalized cross-validation."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import GREY, LOSES, WINS, new_figure, plain
from crossreg.studies.spline.problem import SplineProblem, make_problem
from crossreg.studies.spline.study import BASELINE, METHODS, baseline_errors
from crossreg.studies.study import FIXED_POINT, Measurement
from crossreg.studies.summing import factor, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(rows: list[Measurement]) -> Figure:
    """Draw one problem, learned against best lambda, and errors against generalized cross-validation."""
    figure = new_figure(12.5, 4.2)
    example, strength, error = figure.subplots(1, 3, width_ratios=(1.15, 1, 1.25))
    last = max((row for row in rows if row["function"] == "bumps"), key=lambda row: row["noise"], default=rows[-1])
    _draw_example(example, make_problem(last["function"], last["noise"], last["seed"]), rows, last)
    _draw_strengths(strength, rows)
    _draw_errors(error, rows)
    for axes in (example, strength, error):
        plain(axes)
    return figure


def _draw_example(axes: Axes, problem: SplineProblem, rows: list[Measurement], case: Measurement) -> None:
    keys = ("method", "function", "noise", "seed")
    (learned,) = (r for r in rows if [r[key] for key in keys] == ["implicit", *(case[key] for key in keys[1:])])
    refit = problem.refit(learned["ratio"] * problem.best()[0])
    usual = problem.everything.solution(problem.everything.strength_of_gcv())
    axes.plot(problem.train.x, problem.train.y[:, 0], "o", color="0.6", markersize=3, label="train")
    axes.plot(problem.reg.x, problem.reg.y[:, 0], "x", color="0.4", markersize=4, label="reg")
    truth = problem.truth
    axes.plot(truth.x, truth.y[:, 0], color="0", linewidth=1.2, label="the function")
    axes.plot(truth.x, truth.basis @ refit, color=WINS, label="implicit, refit")
    axes.plot(truth.x, truth.basis @ usual, "--", color=LOSES, label=BASELINE)
    axes.set(xlabel="x", ylabel="y (standard deviations of the function)")
    axes.set_title(f"{case['function']}, noise {case['noise']:g}, seed {case['seed']}", fontsize=9)
    axes.legend(fontsize=8, frameon=False)


def _draw_strengths(axes: Axes, rows: list[Measurement]) -> None:
    looks = (("GCV, train", "^", GREY), (FIXED_POINT, "s", LOSES), ("implicit", "o", WINS))
    lowest = 1e-9
    for method, marker, colour in looks:
        mine = those(rows, method=method)
        axes.plot(
            [factor(row["ratio"]) for row in mine], [max(row["excess"], lowest) for row in mine], marker,
            color=colour, markersize=4, alpha=0.6, label=method,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="lambda off by a factor of", ylabel="reg loss above the lowest (relative)")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _draw_errors(axes: Axes, rows: list[Measurement]) -> None:
    methods = [method for method in METHODS if method != BASELINE][::-1]
    noises = sorted({row["noise"] for row in rows})
    for noise, colour, marker, shift in zip(noises, (WINS, LOSES), ("o", "s"), (0.15, -0.15), strict=False):
        base = baseline_errors(rows, noise)
        for place, method in enumerate(methods):
            ratios = [
                row["error"] / base[row["function"], row["noise"], row["seed"]]
                for row in rows
                if row["method"] == method and row["noise"] == noise
            ]
            at = [place + shift] * len(ratios)
            axes.plot(ratios, at, marker, color=colour, markersize=3, alpha=0.35, markeredgewidth=0)
            axes.plot(
                statistics.geometric_mean(ratios), place + shift, marker, color=colour, markersize=7,
                markeredgecolor="white", label=f"noise {noise:g}" if place == 0 else None,
            )  # fmt: skip
    axes.axvline(1, color="0.4", linewidth=0.8, linestyle=":")
    axes.set_yticks(range(len(methods)), methods, fontsize=8)
    axes.set(xscale="log", xlabel=f"error to the function / that of {BASELINE}")
    ticks = [
        tick for tick in (0.1, 0.2, 0.5, 1, 2, 5, 10, 20, 50, 100) if axes.get_xlim()[0] <= tick <= axes.get_xlim()[1]
    ]
    axes.set_xticks(ticks, [f"{tick:g}" for tick in ticks])
    axes.set_xticks([], minor=True)
    axes.legend(fontsize=8, frameon=False)
