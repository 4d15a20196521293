"""Ridge regression, whose best regularization has a formula.

    train: w(lambda) = argmin_w 1/(2n) ||X w - y||^2 + lambda/2 ||w||^2
    reg:   min_lambda 1/(2m) ||X' w(lambda) - y'||^2

`implicit` learns lambda, as the strength of an `L2` penalty. `direct` cannot: it learns the norm of w instead, while
the direction of w trains (the paper's way; wherever it ends is the solution w(lambda) of some lambda). Both are
compared with the best lambda, the minimum over lambda of the closed form on the same splits. Where the direct gradient
stops has a formula too: at the lambda whose solution w satisfies w . d L_reg / d w = 0.
"""

from __future__ import annotations

import math
import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from crossreg.studies.batch import half_mse
from crossreg.studies.ridge.problem import UPDATES, learn, make_problem
from crossreg.studies.study import FIXED_POINT, Measurement, Study
from crossreg.studies.summing import factor, groups, median_and_range, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["Ridge"]

CONDITIONS = (1e1, 1e2, 1e3, 1e4, 1e5, 1e6)
NOISES = (0.3, 1.0)


class Ridge(Study):
    """Against the closed form, over condition numbers and noise levels."""

    name = "ridge"
    summary = "ridge regression over condition numbers, against the closed form"
    columns: ClassVar = {
        "noise": "noise",
        "condition": "condition",
        "estimator": "estimator",
        "excess": "reg loss above best, %",
        "strength": "lambda / best",
        "test": "test loss",
        "best_test": "best",
        "plain_test": "none",
    }
    labels = 3

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every condition number with every noise level and seed."""
        return [
            {"condition": condition, "noise": noise, "seed": seed}
            for noise in NOISES
            for condition in CONDITIONS
            for seed in range(seeds)
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what both estimators reach on one problem, and where the direct one would stop."""
        problem = make_problem(**case)
        best, lowest = problem.best()
        known = {
            "best_test": half_mse(problem.solution(best), problem.test),
            "plain_test": half_mse(problem.solution(1e-13), problem.test),
        }

        def row(estimator: str, weights: Tensor, seconds: float) -> Measurement:
            return {
                **case,
                "estimator": estimator,
                "excess": half_mse(weights, problem.reg) / lowest - 1,
                "ratio": problem.strength_of(weights) / best,
                "test": half_mse(weights, problem.test),
                **known,
                "seconds": seconds,
            }

        rows = []
        for estimator in ("implicit", "direct"):
            began = time.perf_counter()
            weights = learn(problem, estimator)
            rows.append(row(estimator, weights, time.perf_counter() - began))
        return [*rows, row(FIXED_POINT, problem.solution(problem.direct_fixed_point()), 0.0)]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return medians and ranges over seeds."""
        found = []
        for noise, condition, estimator in groups(rows, "noise", "condition", "estimator"):
            mine = those(rows, noise=noise, condition=condition, estimator=estimator)
            test = {
                key: f"{statistics.mean(row[key] for row in mine):.4f}" for key in ("test", "best_test", "plain_test")
            }
            found.append(
                {
                    "noise": f"{noise:g}",
                    "condition": f"1e{math.log10(condition):.0f}",
                    "estimator": str(estimator),
                    "excess": median_and_range([100 * row["excess"] for row in mine]),
                    "strength": median_and_range([row["ratio"] for row in mine]),
                    **test,
                }
            )
        return found

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say how far each estimator is from the optimum."""
        said = []
        kinds = {
            "implicit": f"learns lambda in {UPDATES} updates",
            "direct": f"learns the norm of the weights in {UPDATES} updates",
            FIXED_POINT: "in closed form, where more updates would take it",
        }
        for estimator, learned in kinds.items():
            mine = [row for row in rows if row["estimator"] == estimator]
            excess = [row["excess"] for row in mine]
            ratios = [factor(row["ratio"]) for row in mine]
            gain = [(row["plain_test"] - row["test"]) / (row["plain_test"] - row["best_test"]) for row in mine]
            said.append(
                f"{estimator} ({learned}): regularization loss above the optimum by "
                f"{100 * statistics.median(excess):.2g} % (median of {len(mine)} problems; at most "
                f"{100 * max(excess):.2g} %), lambda off by a factor of {statistics.median(ratios):.4g} (at most "
                f"{max(ratios):.4g}); of what the best lambda gains on test data over none it gains "
                f"{100 * statistics.median(gain):.0f} % (median)."
            )
        return said

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return the worst and the median case of each estimator."""
        found = {}
        for estimator, key in (("direct", "direct"), ("implicit", "implicit"), (FIXED_POINT, "fixed_point")):
            mine = [row for row in rows if row["estimator"] == estimator]
            found[f"{key}/excess_median"] = statistics.median(row["excess"] for row in mine)
            found[f"{key}/excess_max"] = max(row["excess"] for row in mine)
            found[f"{key}/lambda_factor_max"] = max(factor(row["ratio"]) for row in mine)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw excess loss and lambda against the condition number."""
        from crossreg.studies.ridge.figure import draw

        return draw(rows)
