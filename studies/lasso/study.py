"""Regression with L1, against the exact path of its solutions and scikit-learn's `LassoCV`.

`implicit` learns lambda, as the strength of an `L1` penalty; weights at zero stay there when lambda changes a little.
`direct` learns the level of the norm (`learn_levels`): theta's steps leave the norm as it is, updates of rho change it
alone. It can only stop where the reg loss has no slope along sign(w). That point of the path is known, as is the one
of the lowest reg loss.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from torch import Tensor

from crossreg.studies.batch import half_mse
from crossreg.studies.lasso.problem import UPDATES, LassoProblem, diabetes, learn, support, synthetic
from crossreg.studies.study import FIXED_POINT, Measurement, Study
from crossreg.studies.summing import groups, median_and_range, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["BEST", "FOLDS", "SAME_SPLIT", "Lasso"]

CONDITIONS = (1e0, 1e1, 1e2, 1e3, 1e4)
DIABETES = {"diabetes, 10": False, "diabetes, 64": True}
SAME_SPLIT, FOLDS, BEST = "LassoCV, same split", "LassoCV, 5 folds of all", "best of the path"


class Lasso(Study):
    """Against the exact path, on diabetes data and over condition numbers."""

    name = "lasso"
    summary = "regression with L1, on diabetes data and over condition numbers, against LassoCV and the exact path"
    columns: ClassVar = {
        "problem": "problem",
        "estimator": "estimator",
        "excess": "reg loss above best, %",
        "norm": "L1 norm / best",
        "size": "weights",
        "support": "support as best's",
        "test": "test loss",
    }
    labels = 2

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every problem with every seed."""
        problems = [*DIABETES, *(f"condition {condition:g}" for condition in CONDITIONS)]
        return [{"problem": problem, "seed": seed} for problem in problems for seed in range(seeds)]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what every estimator reaches on one problem."""
        problem = _problem(case["problem"], case["seed"])
        best, lowest = problem.best()
        ideal = problem.solution(best)

        def row(estimator: str, weights: Tensor, seconds: float = 0.0) -> Measurement:
            found, wanted = support(weights), support(ideal)
            return {
                **case,
                "estimator": estimator,
                "excess": half_mse(weights, problem.reg) / lowest - 1,
                "norm": float(weights.abs().sum() / ideal.abs().sum()),
                "size": len(found),
                "support": len(found & wanted) / max(len(found | wanted), 1),
                "test": half_mse(weights, problem.test),
                "best_test": half_mse(ideal, problem.test),
                "plain_test": half_mse(problem.solution(0.0), problem.test),
                "slope": problem.slope(problem.strength_of(weights)),
                "seconds": seconds,
            }

        rows = []
        for estimator in ("implicit", "direct"):
            began = time.perf_counter()
            weights = learn(problem, estimator)
            rows.append(row(estimator, weights, time.perf_counter() - began))
        rows.append(row(FIXED_POINT, problem.solution(problem.direct_fixed_point())))
        rows.append(row(SAME_SPLIT, problem.cross_validated(same_split=True)))
        rows.append(row(FOLDS, problem.cross_validated(same_split=False)))
        rows[-1]["excess"] = None  # it has trained on what the loss is measured on
        return [*rows, row(BEST, ideal), row("none", problem.solution(0.0))]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return medians and ranges over seeds."""
        found = []
        for problem, estimator in groups(rows, "problem", "estimator"):
            mine = those(rows, problem=problem, estimator=estimator)
            found.append(
                {
                    "problem": str(problem),
                    "estimator": str(estimator),
                    "excess": "–" if estimator == FOLDS else median_and_range([100 * row["excess"] for row in mine]),
                    "norm": median_and_range([row["norm"] for row in mine]),
                    "size": f"{statistics.median(row['size'] for row in mine):.0f}",
                    "support": f"{100 * statistics.mean(row['support'] for row in mine):.0f} %",
                    "test": f"{statistics.mean(row['test'] for row in mine):.4f}",
                }
            )
        return found

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say how far each estimator is from the best solution of the path."""
        said = []
        kinds = {
            "implicit": f"learns lambda in {UPDATES} updates",
            "direct": f"learns the level of the norm in {UPDATES} updates",
            FIXED_POINT: "on the exact path, where more updates would take it",
            SAME_SPLIT: "a grid of 100 on the same split",
            FOLDS: "a grid of 100, five folds of training and regularization split, trained on both",
        }
        for estimator, how in kinds.items():
            mine = those(rows, estimator=estimator)
            loss = ""
            if estimator != FOLDS:
                excess = [100 * row["excess"] for row in mine]
                loss = (
                    f"regularization loss above the best of the path by {statistics.median(excess):.2g} % (median of "
                    f"{len(mine)} problems; at most {max(excess):.2g} %), "
                )
            gains = [
                (row["plain_test"] - row["test"]) / (row["plain_test"] - row["best_test"])
                for row in mine
                if row["plain_test"] > row["best_test"] * 1.01
            ]
            gain = f"{100 * statistics.median(gains):.0f} %" if gains else "nothing to be had"
            norm = median_and_range([row["norm"] for row in mine])
            agreed = 100 * statistics.mean(row["support"] for row in mine)
            said.append(
                f"{estimator} ({how}): {loss}L1 norm {norm} times the best's, {agreed:.0f} % of the support agrees; of "
                f"what the best lambda gains on test data over none it gains {gain} (median)."
            )
        return said

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return the worst and the median case of each estimator."""
        found = {}
        for estimator, key in (
            ("direct", "direct"),
            ("implicit", "implicit"),
            (FIXED_POINT, "fixed_point"),
            (SAME_SPLIT, "lasso_cv"),
        ):
            mine = those(rows, estimator=estimator)
            found[f"{key}/excess_median"] = statistics.median(row["excess"] for row in mine)
            found[f"{key}/excess_max"] = max(row["excess"] for row in mine)
            found[f"{key}/support"] = statistics.mean(row["support"] for row in mine)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw the excess loss and the norm of every problem."""
        from crossreg.studies.lasso.figure import draw

        return draw(rows)


def _problem(name: str, seed: int) -> LassoProblem:
    return diabetes(seed, DIABETES[name]) if name in DIABETES else synthetic(float(name.split()[1]), seed)
