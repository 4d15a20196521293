from __future__ import annotations

import json
from typing import Any, ClassVar

import pytest

from crossreg.services.data import DataConfig
from crossreg.services.training.config import TrainConfig
from crossreg.studies.run import study_named
from crossreg.studies.weight_decay.study import (
    GRID,
    LEARNED,
    NEITHER,
    WeightDecay,
    arm_of_grid,
    cell_of_grid,
    is_of_grid,
)


class Short(WeightDecay):
    """Two arms that learn and a small grid, on a small network."""

    epochs: ClassVar = {"mlp": 2}

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        cells = [arm_of_grid(strength, sigma) for strength in (1e-4, 1e-2) for sigma in (0.1, 1.0)]
        arms = (NEITHER, "noise, direct", "both and label smoothing, unrolled 1", *cells)
        return [case for case in super().cases(seeds) if case["arm"] in arms]


def config_of(arm: str) -> TrainConfig:
    return TrainConfig.model_validate(WeightDecay()._settings("mlp", arm, 1))


def test_an_arm_of_the_grid_has_its_cell_in_its_name() -> None:
    assert cell_of_grid(arm_of_grid(1e-5, 0.03)) == (1e-5, 0.03)
    arms = [case["arm"] for case in WeightDecay().cases(1)]
    assert sum(is_of_grid(arm) for arm in arms) == 2 * 16
    assert {arm for arm in arms if not is_of_grid(arm)} == {NEITHER, *LEARNED}


def test_arms_differ_in_what_regularizes_alone() -> None:
    assert not config_of(NEITHER).regularizers
    grid = config_of(arm_of_grid(1e-3, 0.3)).regularizers
    assert {name: (one.learn, one.value) for name, one in grid.items()} == {"l2": (False, 1e-3), "noise": (False, 0.3)}
    learned = {arm: config_of(arm).learned for arm in LEARNED}
    assert learned.pop("noise, direct") == ["noise", "temperature"]
    assert learned.pop("both and label smoothing, unrolled 1") == ["noise", "temperature", "l2", "label_smoothing"]
    assert all(names == ["noise", "temperature", "l2"] for names in learned.values())
    rho = config_of("both, unrolled 5").rho
    assert (rho.estimator, rho.unroll_steps) == ("unrolled", 5)
    changed = {"regularizers", "rho"}
    assert len({config_of(arm).model_dump_json(exclude=changed) for arm in (NEITHER, *LEARNED)}) == 1


@pytest.mark.slow
def test_the_study_compares_learned_runs_with_the_best_of_the_grid() -> None:
    assert study_named("weight-decay") is WeightDecay
    study = Short(DataConfig(name="digits", limit=300))
    rows = [row for case in study.cases(1) for row in study.solve(**case)]
    by_arm = {row["arm"]: row for row in rows}
    assert by_arm[NEITHER]["strength"] is by_arm[NEITHER]["sigma"] is by_arm["noise, direct"]["strength"] is None
    assert by_arm[arm_of_grid(1e-4, 0.1)]["strength"] == pytest.approx(1e-4)
    assert by_arm[arm_of_grid(1e-4, 0.1)]["sigma"] == pytest.approx(0.1)
    assert by_arm["both and label smoothing, unrolled 1"]["smoothing"] != pytest.approx(0.05)
    summed = {row["arm"]: row for row in study.summed(rows)}
    assert set(summed) == {GRID, NEITHER, "noise, direct", "both and label smoothing, unrolled 1"}
    assert summed[GRID]["reg_nll"] == min(row["reg_nll"] for arm, row in by_arm.items() if is_of_grid(arm))
    assert summed[NEITHER]["compute"] == 1 < summed["noise, direct"]["compute"]
    assert summed[GRID]["compute"] > 4
    assert all(set(row) == set(WeightDecay.columns) for row in study.table(rows))
    assert len(study.findings(rows)) == 3
    numbers = study.numbers(rows)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert len(study.figure(rows).axes) == 3
