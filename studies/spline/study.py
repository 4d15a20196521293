"""Smoothing splines: a learned smoothness against generalized cross-validation.

    fit: c(lambda) = argmin_c 1/(2n) ||B c - y||^2 + lambda R(c),    R(c) = 1/2 sum of squared second differences

`implicit` learns lambda, as the strength of a `Penalty`, on samples that c is not fitted to; `direct` learns the level
of R (`learn_levels`), the rest of c trains. Where the direct rule stops has a formula: at the lambda at whose fit c
grad R . d L_reg / d c = 0. Generalized cross-validation (Craven and Wahba 1979) takes lambda from a formula of the
fitted data alone, so it needs no split and uses all samples for both. "refit" is a fit to all samples, too, with a
learned lambda. P-splines: Eilers and Marx 1996.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from studies.spline.problem import FUNCTIONS, UPDATES, Problem, learn, make_problem
from studies.study import Row, Study
from studies.summing import factor, median_and_range

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Spline"]

NOISES = (0.1, 0.5)
BASELINE = "GCV, all"
FIXED_POINT = "direct, its fixed point"
_KEYS = {
    "implicit": "implicit",
    "direct": "direct",
    FIXED_POINT: "fixed_point",
    "best on reg": "best_on_reg",
    "GCV, train": "gcv_train",
    "implicit, refit": "implicit_refit",
    "direct, refit": "direct_refit",
    BASELINE: "gcv_all",
    "SciPy, all": "scipy_all",
    "oracle, all": "oracle_all",
}
"""Every method, and its name in a metric."""


class Spline(Study):
    """Against the closed form and generalized cross-validation, over functions and noise levels."""

    name = "spline"
    summary = "smoothing splines, learned smoothness against generalized cross-validation"
    columns: ClassVar = {
        "noise": "noise",
        "method": "method",
        "excess": "reg loss above best, %",
        "strength": "lambda / best",
        **{name: f"error, {name}" for name in FUNCTIONS},
        "against": "error / GCV, all",
    }

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every function with every noise level and seed."""
        return [
            {"function": function, "noise": noise, "seed": seed}
            for noise in NOISES
            for function in FUNCTIONS
            for seed in range(seeds)
        ]

    def solve(self, **case: Any) -> list[Row]:
        """Return what each method makes of one problem."""
        problem = make_problem(**case)
        best, lowest = problem.best()
        places = problem.minima()
        rows = []

        def row(method: str, strength: float, on_train: Tensor | None = None, **more: Any) -> None:
            known = {} if on_train is None else {"error": problem.error(on_train)}
            rows.append(
                {
                    **case,
                    "method": method,
                    "excess": None if on_train is None else problem.reg.loss(on_train) / lowest - 1,
                    "ratio": strength / best,
                    "other_minimum": on_train is not None and _nearest(strength, places) != _nearest(best, places),
                    **known,
                    **more,
                }
            )

        for estimator in ("implicit", "direct"):
            began = time.perf_counter()
            fit = learn(problem, estimator)
            seconds = time.perf_counter() - began
            strength = problem.strength_of(fit)
            row(estimator, strength, fit, seconds=seconds)
            row(f"{estimator}, refit", strength, error=problem.error(problem.refit(strength)))
        for method, strength in (
            (FIXED_POINT, problem.direct_fixed_point()),
            ("best on reg", best),
            ("GCV, train", problem.train.strength_of_gcv()),
        ):
            row(method, strength, problem.train.solution(strength))
        for method, strength in ((BASELINE, problem.everything.strength_of_gcv()), ("oracle, all", problem.oracle())):
            fit = problem.everything.solution(strength)
            row(method, problem.as_on_train(strength), error=problem.error(fit))
        row("SciPy, all", best, ratio=None, error=problem.library_error())  # its lambda is in another unit
        return rows

    def table(self, rows: list[Row]) -> list[dict[str, str]]:
        """Return medians and ranges over problems of a noise level, and mean errors of each function."""
        found = []
        for noise in sorted({row["noise"] for row in rows}):
            for method in _KEYS:
                mine = [row for row in rows if row["noise"] == noise and row["method"] == method]
                mean, error, _ = _against(mine, rows)
                excess = [100 * row["excess"] for row in mine if row["excess"] is not None]
                found.append(
                    {
                        "noise": f"{noise:g}",
                        "method": method,
                        "excess": median_and_range(excess, 2),
                        "strength": median_and_range([row["ratio"] for row in mine if row["ratio"] is not None], 2),
                        **{name: _mean([r["error"] for r in mine if r["function"] == name]) for name in FUNCTIONS},
                        "against": f"{mean:.2f} ± {error:.2f}",
                    }
                )
        return found

    def findings(self, rows: list[Row]) -> list[str]:
        """Say how far each learned lambda is from the optimum, and from generalized cross-validation."""
        said = []
        kinds = {
            "implicit": f"learns lambda in {UPDATES} updates",
            "direct": f"learns the level in {UPDATES} updates",
            FIXED_POINT: "in closed form",
        }
        for method, learned in kinds.items():
            mine = [row for row in rows if row["method"] == method]
            there = [row for row in mine if not row["other_minimum"]]
            factors = [factor(row["ratio"]) for row in mine]
            said.append(
                f"{method} ({learned}): regularization loss above the lowest by "
                f"{100 * statistics.median(row['excess'] for row in mine):.2g} % (median of {len(mine)} problems; at "
                f"most {100 * max(row['excess'] for row in mine):.2g} %), lambda off by a factor of "
                f"{statistics.median(factors):.4g} (at most {max(factors):.4g}); nearest to another minimum of the "
                f"loss in {len(mine) - len(there)}"
                + (
                    f"; in the others at most {100 * max(row['excess'] for row in there):.2g} % above."
                    if there
                    else "."
                )
            )
        for method in _KEYS:
            if method != BASELINE:
                mine = [row for row in rows if row["method"] == method]
                mean, error, wins = _against(mine, rows)
                said.append(
                    f"{method}: error to the function {mean:.2f} ± {error:.2f} times that of {BASELINE} (geometric "
                    f"mean over problems, its standard error); lower in {wins} of {len(mine)}."
                )
        return said

    def numbers(self, rows: list[Row]) -> dict[str, float]:
        """Return excess losses, and errors in units of that of generalized cross-validation."""
        found = {}
        for method, key in _KEYS.items():
            mine = [row for row in rows if row["method"] == method]
            excess = [row["excess"] for row in mine if row["excess"] is not None]
            if excess:
                found[f"{key}/excess_median"] = statistics.median(excess)
                found[f"{key}/excess_max"] = max(excess)
            found[f"{key}/error_against_gcv"], _, wins = _against(mine, rows)
            found[f"{key}/wins_against_gcv"] = wins / len(mine)
        return found

    def figure(self, rows: list[Row]) -> Figure:
        """Draw one problem, learned against best lambda, and errors against generalized cross-validation."""
        from services.style import new_figure, plain

        figure = new_figure(12.5, 4.2)
        example, strength, error = figure.subplots(1, 3, width_ratios=(1.15, 1, 1.25))
        last = max((row for row in rows if row["function"] == "bumps"), key=lambda row: row["noise"], default=rows[-1])
        _draw_example(example, make_problem(last["function"], last["noise"], last["seed"]), rows, last)
        _draw_strengths(strength, rows)
        _draw_errors(error, rows)
        for axes in (example, strength, error):
            plain(axes)
        return figure


def _draw_example(axes: Any, problem: Problem, rows: list[Row], case: Row) -> None:
    from services.style import LOSES, WINS

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


def _draw_strengths(axes: Any, rows: list[Row]) -> None:
    from services.style import GREY, LOSES, WINS

    looks = (("GCV, train", "^", GREY), (FIXED_POINT, "s", LOSES), ("implicit", "o", WINS))
    lowest = 1e-9
    for method, marker, colour in looks:
        mine = [row for row in rows if row["method"] == method]
        axes.plot(
            [factor(row["ratio"]) for row in mine], [max(row["excess"], lowest) for row in mine], marker,
            color=colour, markersize=4, alpha=0.6, label=method,
        )  # fmt: skip
    axes.set(xscale="log", yscale="log")
    axes.set(xlabel="lambda off by a factor of", ylabel="reg loss above the lowest (relative)")
    axes.legend(fontsize=8, frameon=False, loc="lower right")


def _draw_errors(axes: Any, rows: list[Row]) -> None:
    from services.style import LOSES, WINS

    methods = [method for method in _KEYS if method != BASELINE][::-1]
    noises = sorted({row["noise"] for row in rows})
    for noise, colour, marker, shift in zip(noises, (WINS, LOSES), ("o", "s"), (0.15, -0.15), strict=False):
        base = _errors(rows, noise)
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


def _errors(rows: list[Row], noise: float | None = None) -> dict[tuple[str, float, int], float]:
    """Return the error of the baseline by problem."""
    return {
        (row["function"], row["noise"], row["seed"]): row["error"]
        for row in rows
        if row["method"] == BASELINE and noise in (None, row["noise"])
    }


def _against(mine: list[Row], rows: list[Row]) -> tuple[float, float, int]:
    """Return the geometric mean of error / baseline's error, its standard error, and how often it is lower."""
    base = _errors(rows)
    logs = [math.log(row["error"] / base[row["function"], row["noise"], row["seed"]]) for row in mine]
    mean = math.exp(statistics.mean(logs))
    error = mean * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return mean, error, sum(log < 0 for log in logs)


def _nearest(strength: float, places: list[float]) -> float | None:
    return min(places, key=lambda place: abs(math.log(place / strength)), default=None)


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.2g}" if values else ""
