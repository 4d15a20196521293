from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.linear_model import Lasso as ScikitLasso

from crossreg.studies.batch import half_mse
from crossreg.studies.lasso.problem import LassoProblem, diabetes, learn, support, synthetic
from crossreg.studies.lasso.study import BEST, FOLDS, SAME_SPLIT, Lasso
from crossreg.studies.study import FIXED_POINT


def small(condition: float = 10.0) -> LassoProblem:
    return synthetic(condition, 0, num_features=12, relevant=3, rows=40)


@pytest.mark.parametrize("share", [0.9, 0.3, 0.02])
def test_the_path_is_that_of_a_solver(share: float) -> None:
    problem = small()
    strength = share * float(problem.path[0][0])
    x, y = (part.numpy() for part in problem.train)
    solved = ScikitLasso(alpha=strength, fit_intercept=False, tol=1e-12, max_iter=100_000).fit(x, y[:, 0]).coef_
    np.testing.assert_allclose(problem.solution(strength)[:, 0].numpy(), solved, atol=1e-6)
    assert problem.strength_of(problem.solution(strength)) == pytest.approx(strength, rel=1e-6)


def test_the_best_is_where_the_held_out_loss_is_lowest() -> None:
    problem = small()
    best, lowest = problem.best()
    grid = np.geomspace(1e-4, 1, 2000) * float(problem.path[0][0])
    values = [half_mse(problem.solution(strength), problem.reg) for strength in grid]
    assert lowest <= min(values)
    assert lowest == pytest.approx(min(values), rel=1e-4)
    assert half_mse(problem.solution(best), problem.reg) == pytest.approx(lowest)


@pytest.mark.slow
@pytest.mark.parametrize("condition", [pytest.param(1.0, marks=pytest.mark.thorough), 100.0])
def test_implicit_lands_on_the_best_and_direct_where_the_path_has_no_slope(condition: float) -> None:
    problem = small(condition)
    best, lowest = problem.best()
    implicit, direct = learn(problem, "implicit"), learn(problem, "direct", 60)
    assert half_mse(implicit, problem.reg) / lowest - 1 < 1e-3
    assert problem.strength_of(implicit) == pytest.approx(best, rel=0.02)
    assert support(implicit) == support(problem.solution(best))
    torch.testing.assert_close(direct, problem.solution(problem.strength_of(direct)), rtol=1e-3, atol=1e-4)
    assert support(direct) == support(problem.solution(problem.strength_of(direct)))
    # no slope, or one that changes its sign where a weight enters; there can be several such places
    for place, width in ((problem.strength_of(direct), 0.06), (problem.direct_fixed_point(), 0.01)):
        assert problem.slope((1 - width) * place) > 0 > problem.slope((1 + width) * place)


def test_data_are_split_and_scaled() -> None:
    problem = diabetes(0, quadratic=True)
    assert [tuple(x.shape) for x, _ in (problem.train, problem.reg, problem.test)] == [(221, 64), (111, 64), (110, 64)]
    torch.testing.assert_close(problem.train[0].std(0), torch.ones(64, dtype=torch.float64))
    assert torch.linalg.matrix_rank(problem.train[0]) == 64
    assert diabetes(0).train[0].shape == (221, 10)
    x, y = synthetic(1e3, 1, rows=50_000).train
    assert float(y.var()) == pytest.approx(1.25, rel=0.03)
    torch.testing.assert_close(x.var(0), torch.ones(50, dtype=torch.float64), rtol=0.05, atol=0)


class TestStudy:
    @pytest.fixture(scope="class")
    def study(self) -> Lasso:
        return Lasso()

    @pytest.fixture(scope="class")
    def rows(self, study: Lasso) -> list[dict[str, object]]:
        return study.solve(problem="diabetes, 10", seed=1)

    @pytest.mark.slow
    def test_rows(self, study: Lasso, rows: list[dict[str, object]]) -> None:
        by = {row["estimator"]: row for row in rows}
        assert set(by) == {"implicit", "direct", FIXED_POINT, SAME_SPLIT, FOLDS, BEST, "none"}
        assert by[BEST]["excess"] == 0
        assert by[FOLDS]["excess"] is None
        assert float(str(by["none"]["excess"])) > float(str(by["implicit"]["excess"]))
        assert {case["problem"] for case in study.cases(2)} >= {"diabetes, 10", "diabetes, 64", "condition 1"}

    @pytest.mark.slow
    def test_said_and_drawn(self, study: Lasso, rows: list[dict[str, object]]) -> None:
        table = study.table(rows)
        assert set(table[0]) == set(study.columns)
        said = study.findings(rows)
        assert len(said) == 5
        assert "nothing to be had" not in said[0]
        assert study.numbers(rows)["implicit/excess_max"] < 1e-3
        assert len(study.figure(rows).axes) == 2
