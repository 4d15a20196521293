"""Every estimator against finite differences of the true bilevel objective, and what an update costs.

    truth: d/d rho C2(theta*(rho), rho),   theta*(rho) = argmin C1(theta, rho)

The direct gradient leaves out what rho does to theta*; the others follow theta, some for a few steps. rho's optimizer
(Adam) forgets the size of a gradient, so its direction is what counts, for one number its sign; both are told. Small
networks and regressions in float64 at their minima; time and memory on a multilayer perceptron in float32.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

import torch

from crossreg import T1T2, Batches, Direct, Implicit, Unrolled
from crossreg.estimators import Estimator
from crossreg.estimators.hypergradient import theta_of
from studies.hypergradient.cost import INTERVAL, measure
from studies.hypergradient.problem import KINDS, make_problem
from studies.study import Row, Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["ESTIMATORS", "Hypergradient"]

COST = "cost"
SAMPLED = "noise, 16 draws"  # of which an estimator takes one or two for the training objective
POINTS = 5  # random problems of a kind for every seed

ESTIMATORS: dict[str, Callable[[Batches, torch.optim.Optimizer], Estimator]] = {
    "direct": lambda train, optimizer: Direct,
    "T1-T2": lambda train, optimizer: T1T2(train),
    "unrolled, 1 step": lambda train, optimizer: Unrolled(train, optimizer, 1),
    "unrolled, 5 steps": lambda train, optimizer: Unrolled(train, optimizer, 5),
    "unrolled, 50 steps": lambda train, optimizer: Unrolled(train, optimizer, 50),
    "implicit, 10 terms": lambda train, optimizer: Implicit(train, optimizer, terms=10),
    "implicit, 100 terms": lambda train, optimizer: Implicit(train, optimizer, terms=100),
    "implicit, cg": lambda train, optimizer: Implicit(train, solver="cg", terms=500, tolerance=1e-12),
}
"""By name, made of batches of the training split and theta's optimizer."""

# on a sampled batch of a network that is at no minimum, so many iterations would be wasted
COSTED: dict[str, Callable[[Batches, torch.optim.Optimizer], Estimator]] = {
    **ESTIMATORS,
    "implicit, cg": lambda train, optimizer: Implicit(train, solver="cg", terms=10, tolerance=0),
}
_CG_COSTED = "implicit, cg (at most 10)"


class Hypergradient(Study):
    """Cosine and relative error by kind of rho; time and memory."""

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
    default_data = "digits"

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every kind of rho with every random point, and the cost once a seed."""
        points = [{"kind": kind, "seed": seed} for kind in KINDS for seed in range(POINTS * seeds)]
        return [*points, *({"kind": COST, "seed": seed} for seed in range(seeds))]

    def solve(self, **case: Any) -> list[Row]:
        """Return how each estimator does on one problem, or what each costs."""
        return self._costs(**case) if case["kind"] == COST else _compare(**case)

    def _costs(self, **case: Any) -> list[Row]:
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

    def table(self, rows: list[Row]) -> list[dict[str, str]]:
        """Return medians and ranges over random points, and over seeds for the costs."""
        found = []
        for kind in dict.fromkeys(row["kind"] for row in rows):
            for estimator in ESTIMATORS:
                mine = [row for row in rows if row["kind"] == kind and row["estimator"] == estimator]
                cells = dict.fromkeys(self.columns, "")
                cells |= {"kind": kind, "estimator": _name_of_cost(estimator) if kind == COST else estimator}
                found.append(cells | (_cost_cells(mine) if kind == COST else _accuracy_cells(mine)))
        return found

    def findings(self, rows: list[Row]) -> list[str]:
        """Say how near each estimator comes, kind by kind, and what it costs."""
        said = []
        for estimator in ESTIMATORS:
            words = []
            for kind in KINDS:
                mine = [row for row in rows if row["kind"] == kind and row["estimator"] == estimator]
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
            mine = [row for row in rows if row["kind"] == COST and row["estimator"] == estimator]
            if mine:
                cells = _cost_cells(mine)
                said.append(
                    f"{_name_of_cost(estimator)}: an update takes {cells['time']} steps of theta, {cells['share']} of "
                    f"the time at an interval of {INTERVAL}, and {cells['memory']} MB."
                )
        return said

    def numbers(self, rows: list[Row]) -> dict[str, float]:
        """Return median cosines, errors and costs."""
        found = {}
        for kind in dict.fromkeys(row["kind"] for row in rows):
            for estimator in ESTIMATORS:
                mine = [row for row in rows if row["kind"] == kind and row["estimator"] == estimator]
                for key in ("cosine", "error", "time_ratio", "share", "bytes"):
                    values = [row[key] for row in mine if row.get(key) is not None]
                    if values:
                        found[f"{_key(estimator)}/{_key(kind)}/{key}"] = statistics.median(values)
        return found

    def figure(self, rows: list[Row]) -> Figure:
        """Draw a map of cosine and error, and bars of time and memory."""
        from services.style import new_figure

        figure = new_figure(12.5, 7.2)
        parts: Any = figure.subfigures(2, 1, height_ratios=(1.7, 1))
        upper, lower = parts
        _draw_map(upper.subplots(), rows)
        time, memory = lower.subplots(1, 2, sharey=True)
        _draw_bars(time, rows, lambda row: row["time_ratio"], "time of an update (steps of theta)")
        _draw_bars(memory, rows, lambda row: row["bytes"] / 1e6, "peak memory of an update (MB)")
        costs = [row for row in rows if row["kind"] == COST]
        if costs:
            theta = statistics.median(row["theta_bytes"] for row in costs) / 1e6
            memory.axvline(theta, color="0.2", linewidth=1, linestyle="--", label="a step of theta")
            time.axvline(1, color="0.2", linewidth=1, linestyle="--", label="a step of theta")
            time.legend(fontsize=8, frameon=False)
        return figure


def _compare(kind: str, seed: int) -> list[Row]:
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
        updates = [torch.cat([g.reshape(-1) for g in estimator(*given, draws, 1.0)[1]]) for draws in problem.orders()]
        found = torch.stack(updates).mean(0)
        moves = bool(found.any())  # the direct gradient of what the training loss alone has is 0, and refused
        sized = moves and name != "T1-T2"  # T1-T2 leaves out the factor eta
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


def _accuracy_cells(mine: list[Row]) -> dict[str, str]:
    cosines = [row["cosine"] for row in mine if row["cosine"] is not None]
    if not cosines:
        return {"cosine": "none: refused"}
    if mine[0]["count"] == 1:
        cosine = f"sign right in {sum(value > 0 for value in cosines)} of {len(cosines)}"
    else:
        cosine = f"{statistics.median(cosines):.3f} ({min(cosines):.2f} to {max(cosines):.2f})"
    errors = [row["error"] for row in mine if row["error"] is not None]
    sizes = [row["size"] for row in mine if row["size"] is not None]
    return {"cosine": cosine, "error": _range(errors), "size": _range(sizes)}


def _cost_cells(mine: list[Row]) -> dict[str, str]:
    return {
        "time": _range([row["time_ratio"] for row in mine], 3),
        "share": f"{100 * statistics.median(row['share'] for row in mine):.2g} %",
        "memory": f"{statistics.median(row['bytes'] for row in mine) / 1e6:.3g}",
    }


def _draw_map(axes: Any, rows: list[Row]) -> None:
    """Draw errors as shades, with cosine (or how often the sign is right) and error in each cell."""
    import numpy as np

    kinds = [kind for kind in KINDS if any(row["kind"] == kind for row in rows)]
    shades = np.full((len(kinds), len(ESTIMATORS)), np.nan)
    for i, kind in enumerate(kinds):
        for j, estimator in enumerate(ESTIMATORS):
            mine = [row for row in rows if row["kind"] == kind and row["estimator"] == estimator]
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


def _draw_bars(axes: Any, rows: list[Row], value: Callable[[Row], float], label: str) -> None:
    from services.style import WINS, plain

    names = list(ESTIMATORS)[::-1]
    for place, name in enumerate(names):
        values = [value(row) for row in rows if row["kind"] == COST and row["estimator"] == name]
        if values:
            middle = statistics.median(values)
            axes.barh(place, middle, color=WINS, height=0.6)
            axes.text(middle * 1.05, place, f"{middle:.3g}", va="center", fontsize=8)
    axes.set_yticks(range(len(names)), [_name_of_cost(name) for name in names], fontsize=9)
    axes.set(xscale="log", xlabel=label)
    axes.margins(x=0.12)
    plain(axes, "x")


def _name_of_cost(estimator: str) -> str:
    return _CG_COSTED if estimator == "implicit, cg" else estimator


def _range(values: list[float], digits: int = 2) -> str:
    """Return the median, and the smallest and largest value."""
    if not values:
        return ""
    text = f"{statistics.median(values):.{digits}g}"
    return text if len(values) == 1 else f"{text} ({min(values):.{digits}g}–{max(values):.{digits}g})"


def _key(name: str) -> str:
    return name.lower().replace(",", "").replace(" ", "_").replace("-", "_")
