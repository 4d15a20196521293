from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch.profiler import ProfilerActivity, profile

from crossreg import UserError
from crossreg.estimators.hypergradient import theta_of
from crossreg.regularizers.penalties import training_loss
from crossreg.services.data import DataConfig
from crossreg.studies.hypergradient.cost import _peak, measure
from crossreg.studies.hypergradient.kinds import KINDS, make_problem
from crossreg.studies.hypergradient.study import COST, ESTIMATORS, SAMPLED, Hypergradient
from crossreg.studies.run import study_named

REFUSED = {
    "L2, one",
    "L2, one a tensor",
    "L1, where weights are 0",
    "own penalty",
    "label smoothing",
    "loss temperature",
}


@pytest.mark.parametrize("kind", ["L2, one a tensor", "weight norms", "L1, where weights are 0"])
def test_a_problem_is_at_a_minimum_of_its_training_objective(kind: str) -> None:
    problem = make_problem(kind, 1)
    x, y = problem.train

    def objective() -> float:
        return float(training_loss(problem.model, problem.loss, problem.model(x), y).detach())

    lowest = objective()
    torch.manual_seed(0)
    weights = list(theta_of(problem.model).values())
    for _ in range(20):
        changes = [1e-3 * torch.randn_like(weight) for weight in weights]
        for weight, change in zip(weights, changes, strict=True):
            weight.data += change
        assert objective() > lowest
        for weight, change in zip(weights, changes, strict=True):
            weight.data -= change


def test_the_truth_does_not_hang_on_its_step() -> None:
    problem = make_problem("loss temperature", 0)
    torch.testing.assert_close(problem.truth(1e-3), problem.truth(1e-4), rtol=1e-3, atol=0)


@pytest.mark.parametrize(
    "kind", [pytest.param(kind, marks=pytest.mark.slow if "noise" in kind else ()) for kind in KINDS if kind != SAMPLED]
)
def test_implicit_with_an_exact_solver_is_the_truth_for_every_kind_of_rho(kind: str) -> None:
    rows = {row["estimator"]: row for row in Hypergradient().solve(kind=kind, seed=0)}
    assert list(rows) == list(ESTIMATORS)
    assert rows["implicit, cg"]["error"] < 1e-4
    assert rows["implicit, cg"]["cosine"] == pytest.approx(1, abs=1e-8)
    assert rows["implicit, 100 terms"]["error"] < rows["implicit, 10 terms"]["error"] or kind == "output temperature"
    assert (rows["direct"]["cosine"] is None) == (kind in REFUSED)
    assert rows["T1-T2"]["error"] is None
    if kind == "output temperature":  # theta does not feel it
        assert rows["direct"]["error"] < 1e-6
    elif kind not in REFUSED:
        assert rows["direct"]["error"] > 0.05
    if kind == "L1, where weights are 0":  # a step without a proximal operator leaves the zeros
        assert rows["unrolled, 50 steps"]["error"] > 10 * rows["implicit, 100 terms"]["error"]


def test_s_steps_at_a_minimum_are_a_series_of_s_minus_one_terms() -> None:
    from crossreg import Batches, Implicit, Unrolled

    problem = make_problem("L2, one a tensor", 2)
    whole = Batches(*problem.train, len(problem.train[1]), shuffle=False)
    optimizer = torch.optim.SGD(list(theta_of(problem.model).values()), lr=0.5)
    given: Any = (problem.model, problem.loss, *problem.reg, problem.rho, problem.draws, 1.0)
    _, unrolled = Unrolled(whole, optimizer, 4).gradient(*given)
    _, series = Implicit(whole, optimizer, terms=3).gradient(*given)
    for ours, other in zip(unrolled, series, strict=True):
        torch.testing.assert_close(ours, other, rtol=1e-6, atol=1e-12)


def test_memory_is_what_the_allocator_counts() -> None:
    x = torch.randn(400, 300, requires_grad=True)

    def run() -> None:
        kept = torch.tanh(x)
        (kept @ kept.T).relu().square().sum().backward()
        x.grad = None

    with profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        run()
    results: Any = profiler.profiler
    allocated = [event.nbytes() for event in results.kineto_results.events() if event.name() == "[memory]"]
    now = peak = 0
    for size in allocated:
        now += size
        peak = max(peak, now)
    assert _peak(run) == pytest.approx(peak, rel=0.01)
    assert _peak(run) > 3 * 400 * 400 * 4


@pytest.mark.slow
def test_costs_and_their_summary() -> None:
    study = Hypergradient()
    costs = study.solve(kind=COST, seed=0, hidden=32, depth=1)
    by_name = {row["estimator"]: row for row in costs}
    assert list(by_name) == list(ESTIMATORS)
    assert by_name["unrolled, 50 steps"]["bytes"] > 5 * by_name["unrolled, 5 steps"]["bytes"]
    assert by_name["implicit, 100 terms"]["time_ratio"] > 3 * by_name["implicit, 10 terms"]["time_ratio"]
    assert by_name["direct"]["bytes"] == min(row["bytes"] for row in costs)
    assert all(0 < row["share"] < 1 for row in costs)
    rows = [*study.solve(kind="own penalty", seed=0), *study.solve(kind="L2, one a tensor", seed=0), *costs]
    table = study.table(rows)
    assert len(table) == 3 * len(ESTIMATORS)
    assert all(set(row) == set(Hypergradient.columns) for row in table)
    assert table[0]["cosine"] == "none: refused"
    assert table[7]["cosine"] == "sign right in 1 of 1"
    numbers = study.numbers(rows)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["implicit_cg/own_penalty/error"] < 1e-6
    assert len(study.findings(rows)) == 2 * len(ESTIMATORS) + 1
    assert study.figure(rows).axes


def test_costs_are_those_of_a_classification_task() -> None:
    assert study_named("hypergradient") is Hypergradient
    with pytest.raises(UserError, match="diabetes is no classification task"):
        measure(DataConfig(name="diabetes"), 0, ESTIMATORS)
