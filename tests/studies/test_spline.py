from __future__ import annotations

import json
import math
from typing import Any

import pytest
import torch

from crossreg import Smoothness, UserError
from crossreg.services.data import DataConfig
from crossreg.studies.run import study_named
from crossreg.studies.spline.problem import design, learn, make_problem, roughness
from crossreg.studies.spline.study import BASELINE, Spline
from crossreg.studies.study import FIXED_POINT


def test_roughness_is_zero_for_straight_lines_alone() -> None:
    line = torch.linspace(-1, 5, 7, dtype=torch.float64)[None]
    parabola = torch.arange(5, dtype=torch.float64)[None] ** 2  # second differences: three times 2
    assert float(Smoothness().measure([line])[0]) == pytest.approx(0, abs=1e-20)
    assert float(Smoothness().measure([parabola])[0]) == pytest.approx(6)
    assert float(0.5 * parabola[0] @ roughness(5) @ parabola[0]) == pytest.approx(6)


def test_the_basis_adds_up_to_one_and_a_strong_penalty_leaves_a_straight_line() -> None:
    x = torch.linspace(0, 1, 50, dtype=torch.float64)
    torch.testing.assert_close(design(x).sum(1), torch.ones(50, dtype=torch.float64))
    samples = make_problem("bumps", 0.5, 0).everything
    slope = torch.stack([torch.ones_like(samples.x), samples.x], 1)
    line = slope @ torch.linalg.lstsq(slope, samples.y).solution
    torch.testing.assert_close(samples.basis @ samples.solution(1e6), line, rtol=0, atol=1e-4)


def test_a_score_is_that_of_the_hat_matrix_written_out() -> None:
    samples = make_problem("sine", 0.5, 3).train
    strength, n = 0.02, len(samples.y)
    hat = samples.basis @ torch.linalg.solve(
        samples.basis.T @ samples.basis + n * strength * roughness(40), samples.basis.T
    )
    residual = samples.y - hat @ samples.y
    expected = residual.square().mean() / (1 - hat.trace() / n) ** 2
    assert samples.gcv(strength) == pytest.approx(float(expected))
    # leaving one out, with the mean of the hat matrix's diagonal for each of its values
    best = samples.strength_of_gcv()
    assert all(samples.gcv(best * factor) > samples.gcv(best) for factor in (0.8, 1.25))


def test_generalized_cross_validation_agrees_with_a_library() -> None:
    problem = make_problem("bumps", 0.5, 0)
    ours = problem.error(problem.everything.solution(problem.everything.strength_of_gcv()))
    assert problem.library_error() == pytest.approx(ours, rel=0.1)


@pytest.mark.slow
@pytest.mark.parametrize("seed", [0, 2])
def test_implicit_lands_on_the_optimum_and_direct_at_its_fixed_point(seed: int) -> None:
    problem = make_problem("bumps", 0.5, seed)
    best, lowest = problem.best()
    implicit, direct = learn(problem, "implicit", 60), learn(problem, "direct", 60)
    assert abs(problem.reg.loss(implicit) / lowest - 1) < 1e-4
    assert problem.strength_of(implicit) == pytest.approx(best, rel=0.02)
    stop = problem.direct_fixed_point()
    assert abs(math.log(stop / best)) > 0.2  # it is not the optimum
    assert problem.strength_of(direct) == pytest.approx(stop, rel=0.2)
    assert problem.reg.loss(direct) > problem.reg.loss(implicit)
    weights = problem.train.solution(stop)
    along = (roughness(40) @ weights) * (problem.reg.basis.T @ (problem.reg.basis @ weights - problem.reg.y))
    assert float(along.sum()) == pytest.approx(0, abs=1e-7 * float(along.abs().sum()))


def test_every_minimum_is_found() -> None:
    problem = make_problem("sine", 0.5, 0)
    best, _ = problem.best()
    assert min(abs(math.log(place / best)) for place in problem.minima()) < 0.1


@pytest.mark.slow
def test_a_problem_is_summed_up(monkeypatch: pytest.MonkeyPatch) -> None:
    few = lambda problem, estimator: learn(problem, estimator, 30)  # noqa: E731
    monkeypatch.setattr("crossreg.studies.spline.study.learn", few)
    study = Spline()
    rows = study.solve(function="bumps", noise=0.5, seed=2)
    again = [{**row, "seed": 1} for row in rows]
    table = study.table([*rows, *again])
    assert [row["method"] for row in table] == [row["method"] for row in study.table(rows)]
    assert set(table[0]) == set(Spline.columns)
    by_method: dict[str, Any] = {row["method"]: row for row in table}
    assert by_method[BASELINE]["against"] == "1.00 ± 0.00"
    assert by_method["best on reg"]["excess"] == "0 (0–0)"
    assert by_method[FIXED_POINT]["excess"] > "0"
    numbers = study.numbers(rows)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["oracle_all/error_against_gcv"] <= 1
    assert numbers["implicit/excess_max"] < numbers["direct/excess_max"]
    assert any("lower in" in sentence for sentence in study.findings(rows))
    assert len(study.figure(rows).axes) == 3


def test_it_makes_its_own_data() -> None:
    assert study_named("spline") is Spline
    with pytest.raises(UserError, match="makes its own data"):
        Spline(DataConfig(name="digits"))
