"""Every estimator against finite differences of the true bilevel objective, and what an update costs.

    truth: d/d rho C2(theta*(rho), rho),   theta*(rho) = argmin_theta C1(theta, rho)

C1 is the training objective and C2 the held-out loss. The direct gradient leaves out what rho does to theta*; the
others follow theta, some for a few steps only. rho's optimizer (Adam) forgets the size of a gradient, so its direction
is what counts: the cosine with the truth, or the sign where rho is one number. The relative error is measured too.

Accuracy is measured on small networks and regressions in float64 at their minima, time and memory on a multilayer
perceptron in float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from crossreg import T1T2, Batches, Direct, Implicit, Unrolled
from crossreg.estimators import Estimator
from crossreg.estimators.hypergradient import theta_of
from crossreg.studies.hypergradient.cost import INTERVAL, measure
from crossreg.studies.hypergradient.kinds import KINDS, make_problem
from crossreg.studies.study import Measurement, Study
from crossreg.studies.summing import median_and_range, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["COST", "ESTIMATORS", "SAMPLED", "Hypergradient", "name_of_cost"]

COST = "cost"
"""The kind of the case that measures time and memory; all other kinds are of rho."""
SAMPLED = "noise, 16 draws"
"""The kind of rho with more draws than an estimator takes for the training objective."""
POINTS = 5
"""Random problems of every kind of rho, a seed."""

ESTIMATORS: dict[str, Callable[[Batches, torch.optim.Optimizer], Estimator]] = {
    "direct": lambda train, optimizer: Direct(),
    "T1-T2": lambda train, optimizer: T1T2(train),
    "unrolled, 1 step": lambda train, optimizer: Unrolled(train, optimizer, 1),
    "unrolled, 5 steps": lambda train, optimizer: Unrolled(train, optimizer, 5),
    "unrolled, 50 steps": lambda train, optimizer: Unrolled(train, optimizer, 50),
    "implicit, 10 terms": lambda train, optimizer: Implicit(train, optimizer, terms=10),
    "implicit, 100 terms": lambda train, optimizer: Implicit(train, optimizer, terms=100),
    "implicit, cg": lambda train, optimizer: Implicit(train, solver="cg", terms=500, tolerance=1e-12),
}
"""Every estimator by name, with a function that makes it of batches of the training split and theta's optimizer."""

# the cost is measured on a sampled batch, away from a minimum, where more iterations would be wasted
COSTED: dict[str, Callable[[Batches, torch.optim.Optimizer], Estimator]] = {
    **ESTIMATORS,
    "implicit, cg": lambda train, optimizer: Implicit(train, solver="cg", terms=10, tolerance=0),
}
_CG_COSTED = "implicit, cg (at most 10)"


class Hypergradient(Study):
    """Against finite differences, by kind of rho; with the time and memory of an update."""

    name = "hypergradient"
    summary = "gradient estimators against finite differences of the bilevel objective, with time and memory"
    columns: ClassVar = {
        "kind": "rho",
        "estimator": "estimator",
        "cosine": "cosine with the truth",
        "error": "relative error",
        "size": "size / true",
        "time": "update / theta step",
        "share": f"share of time, r = {INTERVAL}",
        "memory": "peak memory, MB",
    }
    labels = 2
    default_data = "digits"

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every kind of rho with every random point, and the cost once a seed."""
        points = [{"kind": kind, "seed": seed} for kind in KINDS for seed in range(POINTS * seeds)]
        return [*points, *({"kind": COST, "seed": seed} for seed in range(seeds))]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return how each estimator does on one problem, or what each costs."""
        return self._costs(**case) if case["kind"] == COST else _compare(**case)

    def _costs(self, **case: Any) -> list[Measurement]:
        assert self.data is not None
        shape = {key: value for key, value in case.items() if key not in ("kind", "seed")}
        found = measure(self.data, case["seed"], COSTED, **shape)
        return [
            {
                "kind": COST,
                "seed": case["seed"],
                "estimator": name,
                "time_ratio": cost["seconds"] / cost["theta_seconds"],
                "share": cost["seconds"] / (cost["seconds"] + INTERVAL * cost["theta_seconds"]),
                "bytes": cost["bytes"],
                "theta_bytes": cost["theta_bytes"],
                "theta_seconds": cost["theta_seconds"],
            }
            for name, cost in found.items()
        ]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return medians and ranges over random points, and over seeds for the costs."""
        found = []
        for kind in dict.fromkeys(row["kind"] for row in rows):
            for estimator in ESTIMATORS:
                mine = those(rows, kind=kind, estimator=estimator)
                cells = dict.fromkeys(self.columns, "")
                cells |= {"kind": kind, "estimator": name_of_cost(estimator) if kind == COST else estimator}
                found.append(cells | (_cost_cells(mine) if kind == COST else _accuracy_cells(mine)))
        return found

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say how near each estimator comes, kind by kind, and what it costs."""
        said = []
        for estimator in ESTIMATORS:
            words = []
            for kind in KINDS:
                mine = those(rows, kind=kind, estimator=estimator)
                cells = _accuracy_cells(mine)
                words.append(f"{kind}: {cells['cosine']}" if mine else "")
            said.append(f"{estimator}, cosine with the truth by kind of rho: {'; '.join(filter(None, words))}.")
        for sampled, where in ((False, "where C1 has the draws it takes"), (True, SAMPLED)):
            errors = [
                row["error"]
                for row in rows
                if row["kind"] != COST and (row["kind"] == SAMPLED) == sampled and row["estimator"] == "implicit, cg"
            ]
            if errors:
                said.append(
                    f"implicit, cg, {where}: relative error {statistics.median(errors):.2g} (median of {len(errors)} "
                    f"points; at most {max(errors):.2g})."
                )
        for estimator in ESTIMATORS:
            mine = those(rows, kind=COST, estimator=estimator)
            if mine:
                cells = _cost_cells(mine)
                said.append(
                    f"{name_of_cost(estimator)}: an update takes {cells['time']} steps of theta, {cells['share']} of "
                    f"the time at an interval of {INTERVAL}, and {cells['memory']} MB."
                )
        return said

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return median cosines, errors and costs."""
        found = {}
        for kind in dict.fromkeys(row["kind"] for row in rows):
            for estimator in ESTIMATORS:
                mine = those(rows, kind=kind, estimator=estimator)
                for key in ("cosine", "error", "time_ratio", "share", "bytes"):
                    values = [row[key] for row in mine if row.get(key) is not None]
                    if values:
                        found[f"{_key(estimator)}/{_key(kind)}/{key}"] = statistics.median(values)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw a map of cosine and error, and bars of time and memory."""
        from crossreg.studies.hypergradient.figure import draw

        return draw(rows)


def _compare(kind: str, seed: int) -> list[Measurement]:
    """Measure how near every estimator comes to the true gradient of one problem."""
    problem = make_problem(kind, seed)
    truth = problem.truth()
    curvature = torch.linalg.eigvalsh(problem.hessian())
    whole = Batches(*problem.train, len(problem.train[1]), shuffle=False)
    weights = list(theta_of(problem.model).values())
    optimizer = torch.optim.SGD(weights, lr=1 / float(curvature[-1]))
    rows = []
    for name, make in ESTIMATORS.items():
        estimator = make(whole, optimizer)
        given = (problem.model, problem.loss, *problem.reg, problem.rho)
        updates = [
            torch.cat([g.reshape(-1) for g in estimator.gradient(*given, draws)[1]]) for draws in problem.orders()
        ]
        found = torch.stack(updates).mean(0)
        # `CrossRegularizer` refuses an estimator that finds zero: the direct one, of rho that acts on training alone
        moves = bool(found.any())
        sized = moves and name != "T1-T2"  # T1-T2 leaves out the factor eta, so its size means nothing
        rows.append(
            {
                "kind": kind,
                "seed": seed,
                "estimator": name,
                "count": len(truth),
                "cosine": float(torch.cosine_similarity(found, truth, dim=0, eps=0)) if moves else None,
                "error": float((found - truth).norm() / truth.norm()) if sized else None,
                "size": float(found.norm() / truth.norm()) if sized else None,
                "condition": float(curvature[-1] / curvature[curvature > 1e-7 * curvature[-1]][0]),
            }
        )
    return rows


def _accuracy_cells(mine: list[Measurement]) -> dict[str, str]:
    cosines = [row["cosine"] for row in mine if row["cosine"] is not None]
    if not cosines:
        return {"cosine": "none: refused"}
    if mine[0]["count"] == 1:
        cosine = f"sign right in {sum(value > 0 for value in cosines)} of {len(cosines)}"
    else:
        cosine = f"{statistics.median(cosines):.3f} ({min(cosines):.2f} to {max(cosines):.2f})"
    errors = [row["error"] for row in mine if row["error"] is not None]
    sizes = [row["size"] for row in mine if row["size"] is not None]
    return {"cosine": cosine, "error": median_and_range(errors, 2), "size": median_and_range(sizes, 2)}


def _cost_cells(mine: list[Measurement]) -> dict[str, str]:
    return {
        "time": median_and_range([row["time_ratio"] for row in mine], 3, 3),
        "share": f"{100 * statistics.median(row['share'] for row in mine):.2g} %",
        "memory": f"{statistics.median(row['bytes'] for row in mine) / 1e6:.3g}",
    }


def name_of_cost(estimator: str) -> str:
    """Return how an estimator is called beside its cost: with its number of iterations, where that is lower there."""
    return _CG_COSTED if estimator == "implicit, cg" else estimator


def _key(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_").replace("-", "_")
