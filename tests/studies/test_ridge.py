from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch

from crossreg import UserError
from crossreg.services.tracking import TrackingConfig
from crossreg.studies.batch import half_mse
from crossreg.studies.ridge.problem import learn, make_problem
from crossreg.studies.ridge.study import Ridge
from crossreg.studies.run import reproduce, study_named
from crossreg.studies.study import FIXED_POINT


class Small(Ridge):
    """Two problems of the study."""

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        return [{**case, "num_features": 10} for case in super().cases(seeds) if case["condition"] == 1e1]


class Broken(Small):
    def solve(self, **case: Any) -> Any:
        raise RuntimeError("no such matrix")


def test_the_best_strength_is_where_the_held_out_loss_is_lowest() -> None:
    problem = make_problem(1e3, 0.3, 0)
    best, lowest = problem.best()
    around = [half_mse(problem.solution(best * factor), problem.reg) for factor in (0.5, 0.99, 1.01, 2.0)]
    assert all(value > lowest for value in around)
    assert problem.strength_of(problem.solution(best)) == pytest.approx(best, rel=1e-6)
    assert problem.strength_of(2 * problem.solution(0.0)) < 1e-15


def test_a_problem_is_as_ill_conditioned_as_it_says() -> None:
    x, y = make_problem(1e3, 0.5, 1, num_train=200_000, num_features=5).train
    eigenvalues = torch.linalg.eigvalsh(x.T @ x / len(x))
    assert float(eigenvalues[-1] / eigenvalues[0]) == pytest.approx(1e3, rel=0.05)
    assert float(y.var()) == pytest.approx(1 + 0.25, rel=0.02)


@pytest.mark.parametrize(("condition", "noise"), [pytest.param(1e1, 1.0, marks=pytest.mark.thorough), (1e3, 0.3)])
def test_implicit_lands_on_the_optimum_and_direct_beside_it(condition: float, noise: float) -> None:
    problem = make_problem(condition, noise, 1, 40, 40, 15)
    best, lowest = problem.best()
    implicit, direct = (learn(problem, estimator) for estimator in ("implicit", "direct"))
    assert half_mse(implicit, problem.reg) / lowest - 1 < 1e-3
    assert problem.strength_of(implicit) == pytest.approx(best, rel=0.02)
    assert problem.strength_of(direct) == pytest.approx(problem.direct_fixed_point(), rel=0.02)
    beside = half_mse(direct, problem.reg) / lowest - 1
    assert beside > 10 * abs(half_mse(implicit, problem.reg) / lowest - 1)
    assert half_mse(direct, problem.reg) < half_mse(problem.solution(1e-13), problem.reg)


@pytest.mark.slow
def test_a_study_is_run_on_several_cores_and_recorded(tmp_path: Path) -> None:
    import mlflow

    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    told: list[tuple[int, int]] = []
    result = reproduce(Small(), 1, tracking, tmp_path / "out", workers=2, advance=lambda *done: told.append(done))
    assert told == [(1, 2), (2, 2)]
    assert [(row["noise"], row["estimator"]) for row in result.rows] == [
        (noise, estimator) for noise in (0.3, 1.0) for estimator in ("implicit", "direct", FIXED_POINT)
    ]
    assert set(result.table[0]) == set(Ridge.columns)
    assert "at most" in result.findings[0]
    assert result.figure.stat().st_size > 10_000
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    client = mlflow.MlflowClient(tracking.uri)
    run = client.get_run(result.run_id)
    assert run.info.status == "FINISHED"
    assert run.data.metrics["implicit/excess_max"] == plain["numbers"]["implicit/excess_max"] < 1e-3
    assert math.isfinite(run.data.metrics["direct/excess_max"])
    assert {entry.path for entry in client.list_artifacts(result.run_id)} >= {"rows.json", "figures"}


@pytest.mark.slow
def test_a_study_that_fails_ends_its_run(tmp_path: Path) -> None:
    import mlflow

    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(RuntimeError, match="no such matrix"):
        reproduce(Broken(), 1, tracking, tmp_path / "out", workers=1)
    client = mlflow.MlflowClient(tracking.uri)
    (run,) = client.search_runs([client.get_experiment_by_name("reproduce").experiment_id])
    assert run.info.status == "FAILED"


def test_mistakes_are_named(tmp_path: Path) -> None:
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    with pytest.raises(UserError, match="unknown study 'rigde'; did you mean 'ridge'"):
        study_named("rigde")
    with pytest.raises(UserError, match="seeds is 0"):
        reproduce(Small(), 0, tracking, tmp_path)
    with pytest.raises(UserError, match="workers is 0"):
        reproduce(Small(), 1, tracking, tmp_path, workers=0)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot write to"):
        reproduce(Small(), 1, tracking, tmp_path / "file")
