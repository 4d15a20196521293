"""The study of ensembles: its scenes can be trained, and its claims can be shown and not be shown."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from crossreg import UserError
from crossreg.services.data import DataConfig
from crossreg.studies.claims import interval
from crossreg.studies.ensemble import speed
from crossreg.studies.ensemble.claims import CLAIMS
from crossreg.studies.ensemble.scenes import CORRELATED, GRID, LEARNED, SAME_ROWS, SCENES, SPEED, TABLES, WIDE
from crossreg.studies.ensemble.study import EnsembleStudy, _resolved
from crossreg.studies.study import Measurement

BY_NAME = {claim.name: claim for claim in CLAIMS}


def rows(scene: str, arm: str, *values: float, **others: Any) -> list[Measurement]:
    """A training a seed, with these NLLs."""
    usual = {"accuracy": 0.9, "alone": [], "error_correlation": 0.5, "disagreement": 0.1, "flops": 1.0, "parameters": 5}
    return [
        {"scene": scene, "arm": arm, "seed": seed, "nll": value, "seconds": 1.0, "weight": None, **usual, **others}
        for seed, value in enumerate(values)
    ]


def shown(name: str, found: list[Measurement]) -> bool:
    verdict = BY_NAME[name].judge(found)
    assert verdict is not None
    return verdict.shown


def test_without_measurements_there_is_no_verdict() -> None:
    assert all(claim.judge([]) is None for claim in CLAIMS)


def test_four_networks_have_to_be_better_on_two_of_three() -> None:
    def found(*leads: float) -> list[Measurement]:
        return [
            row
            for scene, lead in zip(("digits", "fashion", "watch"), leads, strict=True)
            for arm, shift in (("four", -lead), ("one", 0.0), (WIDE, 1.0))
            for row in rows(scene, arm, *(0.5 + shift + noise for noise in (-0.01, 0.0, 0.01)))
        ]

    assert shown("four", found(0.1, 0.1, -0.1))
    assert not shown("four", found(0.1, -0.1, -0.1))
    assert shown("wide", found(0.1, -0.1, -0.1))
    spread = found(0.1, 0.1, 0.1)
    for row in spread:
        row["nll"] += 0.3 * row["seed"] * (row["arm"] == "four") * (row["scene"] != "digits")
    assert not shown("four", spread)  # intervals that hold zero


@pytest.mark.parametrize(("difference", "ratio", "expected"), [(1e-6, 2, True), (1e-4, 2, False), (1e-6, 1.2, False)])
def test_speed_is_judged_by_both(difference: float, ratio: float, expected: bool) -> None:
    found = [{"scene": SPEED, "arm": "vmap", "seed": 0, "difference": difference, "ratio": ratio}]
    assert shown("vmap", found) is expected


@pytest.mark.parametrize(("gain", "expected"), [(0.9, True), (0.6, True), (0.3, False), (-0.1, False)])
def test_shared_weights_have_to_gain_half(gain: float, expected: bool) -> None:
    found = []
    for scene in TABLES:
        for arm, value in (("one", 0.5), ("five", 0.4), ("five, shared weights", 0.5 - 0.1 * gain)):
            found += rows(scene, arm, value, value)
    assert shown("shared", found) is expected


def test_the_correlation_has_to_fall_with_the_weight() -> None:
    falling = [row for place, arm in enumerate(CORRELATED) for row in rows("persons", arm, 1, error_correlation=-place)]
    assert shown("correlation", falling)
    falling[2]["error_correlation"] = 5.0
    assert not shown("correlation", falling)


def test_an_improvement_is_told_from_equivalence() -> None:
    for lead, better in ((0.1, True), (0.0, False)):
        found = rows("persons", SAME_ROWS, 0.5, 0.6, 0.7) + rows("persons", "diversity 0.5", *(
            value - lead for value in (0.5, 0.601, 0.699)))  # fmt: skip
        verdict = BY_NAME["diversity"].judge(found)
        assert verdict is not None
        assert verdict.shown is better
        assert "equivalent within a point" in verdict.evidence


def test_members_collude_where_spread_and_fall_say_so() -> None:
    def found(fall: float, ratio: float) -> list[Measurement]:
        plain = rows("persons", SAME_ROWS, 1, 1, 1, spread=0.1, spread_train=0.1, alone=[0.9, 0.8])
        joint = {"spread": 0.1, "spread_train": 0.1 * ratio, "alone": [0.9, 0.8 - fall]}
        return plain + rows("persons", "joint 0.999", 1, 1, 1, **joint)

    assert shown("joint", found(0.05, 2.0))
    assert not shown("joint", found(0.01, 2.0))
    assert not shown("joint", found(0.05, 0.9))


def test_a_learned_weight_is_held_to_the_best_and_to_none() -> None:
    def found(learned: float) -> list[Measurement]:
        grid = [row for name in GRID for row in rows("persons", name, 0.5, 0.6, 0.7)]
        plain = rows("persons", SAME_ROWS, 0.52, 0.62, 0.72)
        return grid + plain + rows("persons", LEARNED, *(learned + v for v in (0.0, 0.11, 0.19)), weight=0.3)

    assert shown("learned", found(0.5))
    assert not shown("learned", found(0.6))


def test_an_interval_takes_three_values() -> None:
    assert interval([1.0, 2.0]) == (1.5, float("inf"))
    mean, half = interval([1.0, 2.0, 3.0])
    assert (mean, half) == (2.0, pytest.approx(4.303 / 3**0.5, rel=1e-3))


@pytest.mark.parametrize("scene", ["digits", "watch"])
def test_all_arms_of_a_scene_cost_the_same_at_most(scene: str) -> None:
    from crossreg.services.data import load_data
    from crossreg.services.search.budget import Plan

    rows_of_a_network = set()
    for arm in SCENES[scene].arms:
        config = _resolved(scene, arm, 0, Path("data"))
        rows_of_a_network.add(config.batch_size // config.shares)
        if "lstm" not in arm and "cnn1d" not in arm and arm != WIDE:
            plan = Plan(config, load_data(config.data), select=False)
            theta = config.steps * config.batch_size * plan.flops["theta"]
            base = _resolved(scene, next(iter(SCENES[scene].arms)), 0, Path("data"))
            assert theta / config.batch_size / config.steps > 0
            assert config.steps * config.batch_size * (config.ensemble / config.shares) == pytest.approx(
                base.steps * base.batch_size * (base.ensemble / base.shares), rel=0.1
            )
    assert len(rows_of_a_network) == 1


def test_a_training_is_measured(tmp_path: Path) -> None:
    study = EnsembleStudy(DataConfig(name="pairs", root=tmp_path))
    case = {"scene": "vowels", "arm": "cnn1d + cnn1d", "seed": 0, "root": str(tmp_path)}
    (found,) = study.solve(**case)
    assert found["accuracy"] > 0.8
    assert len(found["alone"]) == 2
    assert 0 <= found["disagreement"] < 0.5
    table = study.table([found])
    assert table[0]["arm"] == "cnn1d + cnn1d"
    assert study.columns.keys() == table[0].keys()


def test_networks_as_one_take_the_same_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(speed, "_STEPS", 5)
    monkeypatch.setattr(speed, "_REPEATS", 1)
    assert speed.vmapped_against_looped()["difference"] < 1e-5


def test_its_data_are_not_chosen_by_pairs() -> None:
    with pytest.raises(UserError, match="'ensemble' has no pairs to choose from"):
        EnsembleStudy(DataConfig(name="pairs"), ["wages"])
