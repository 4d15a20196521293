"""Smoothing splines: a learned smoothness against generalized cross-validation.

    fit: c(lambda) = argmin_c 1/(2n) ||B c - y||^2 + lambda R(c),    R(c) = 1/2 sum of squared second differences

c are the coefficients of a spline and B the values of its basis functions (P-splines, Eilers and Marx 1996). `implicit`
learns lambda, as the strength of a `Penalty`, on samples that c is not fitted to. `direct` learns the level of R
(`learn_levels`), while the rest of c trains. Where the direct gradient stops has a formula: at the lambda whose fit c
satisfies grad R(c) . d L_reg / d c = 0.

Generalized cross-validation (Craven and Wahba 1979) takes lambda from a formula of the fitted data alone, so it needs
no split and uses all samples for both. "refit" is a fit with a learned lambda to all samples as well.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from crossreg.studies.spline.problem import FUNCTIONS, UPDATES, learn, make_problem
from crossreg.studies.study import FIXED_POINT, Measurement, Study
from crossreg.studies.summing import factor, median_and_range, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BASELINE", "METHODS", "Spline", "baseline_errors"]

NOISES = (0.1, 0.5)
BASELINE = "GCV, all"
"""Generalized cross-validation on all samples, which the errors of the other methods are compared with."""
METHODS = {
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
"""Every method by its name in a table, with its name in a metric."""


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
    labels = 2

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every function with every noise level and seed."""
        return [
            {"function": function, "noise": noise, "seed": seed}
            for noise in NOISES
            for function in FUNCTIONS
            for seed in range(seeds)
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return the error and lambda of every method on one problem."""
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

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return medians and ranges over problems of a noise level, and mean errors of each function."""
        found = []
        for noise in sorted({row["noise"] for row in rows}):
            for method in METHODS:
                mine = those(rows, noise=noise, method=method)
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

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say how far each learned lambda is from the optimum, and from generalized cross-validation."""
        said = []
        kinds = {
            "implicit": f"learns lambda in {UPDATES} updates",
            "direct": f"learns the level in {UPDATES} updates",
            FIXED_POINT: "in closed form",
        }
        for method, learned in kinds.items():
            mine = those(rows, method=method)
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
        for method in METHODS:
            if method != BASELINE:
                mine = those(rows, method=method)
                mean, error, wins = _against(mine, rows)
                said.append(
                    f"{method}: error to the function {mean:.2f} ± {error:.2f} times that of {BASELINE} (geometric "
                    f"mean over problems, its standard error); lower in {wins} of {len(mine)}."
                )
        return said

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return excess losses, and errors in units of that of generalized cross-validation."""
        found = {}
        for method, key in METHODS.items():
            mine = those(rows, method=method)
            excess = [row["excess"] for row in mine if row["excess"] is not None]
            if excess:
                found[f"{key}/excess_median"] = statistics.median(excess)
                found[f"{key}/excess_max"] = max(excess)
            found[f"{key}/error_against_gcv"], _, wins = _against(mine, rows)
            found[f"{key}/wins_against_gcv"] = wins / len(mine)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw one problem, learned against best lambda, and errors against generalized cross-validation."""
        from crossreg.studies.spline.figure import draw

        return draw(rows)


def baseline_errors(rows: list[Measurement], noise: float | None = None) -> dict[tuple[str, float, int], float]:
    """Return the error of `BASELINE` by function, noise and seed.

    Args:
        rows: of all methods.
        noise: of the problems that are wanted; None takes all.
    """
    return {
        (row["function"], row["noise"], row["seed"]): row["error"]
        for row in rows
        if row["method"] == BASELINE and noise in (None, row["noise"])
    }


def _against(mine: list[Measurement], rows: list[Measurement]) -> tuple[float, float, int]:
    """Return the geometric mean of the error / `BASELINE`'s, its standard error, and how often the error is lower."""
    base = baseline_errors(rows)
    logs = [math.log(row["error"] / base[row["function"], row["noise"], row["seed"]]) for row in mine]
    mean = math.exp(statistics.mean(logs))
    error = mean * statistics.stdev(logs) / math.sqrt(len(logs)) if len(logs) > 1 else 0.0
    return mean, error, sum(log < 0 for log in logs)


def _nearest(strength: float, places: list[float]) -> float | None:
    """Return which of some lambdas is nearest to this one, as a ratio."""
    return min(places, key=lambda place: abs(math.log(place / strength)), default=None)


def _mean(values: list[float]) -> str:
    return f"{statistics.mean(values):.2g}" if values else ""
