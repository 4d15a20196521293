from __future__ import annotations

import json
from pathlib import Path
from typing import Any, ClassVar

import pytest
import torch

from crossreg import UserError
from crossreg.services.data import DataConfig
from crossreg.services.tracking import TrackingConfig
from crossreg.studies.augmentation.problem import (
    ESTIMATORS,
    Pictures,
    brightened,
    load_pictures,
    only,
    planted,
    train,
)
from crossreg.studies.augmentation.study import AugmentationMagnitudes
from crossreg.studies.run import reproduce, study_named


class Short(AugmentationMagnitudes):
    """A few steps of a few cases."""

    steps: ClassVar[int] = 12

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        mine = {(0.0, 0.0), (4 / 28, 0.0), (0.0, 30.0)}
        return [
            case
            for case in super().cases(seeds)
            if case["part"] != "planted" or (case["shift"], case["rotation"]) in mine
        ]


@pytest.fixture(scope="module")
def digits() -> Pictures:
    return load_pictures(DataConfig(name="digits", limit=1000), 0)


def test_planting_changes_held_out_images_alone_and_within_bounds(digits: Pictures) -> None:
    there = planted(digits, 1, shift=1.0, rotation=20.0)
    assert torch.equal(there.train[0], digits.train[0])
    assert not torch.allclose(there.reg[0], digits.reg[0])
    torch.testing.assert_close(planted(digits, 1).test[0], digits.test[0], atol=1e-5, rtol=0)
    ramp = torch.arange(8.0).expand(500, 1, 8, 8)
    moved = planted(Pictures(digits.train, (ramp, torch.zeros(500)), digits.test, digits.classes), 0, shift=2.0)
    distance = (moved.reg[0] - ramp)[:, 0, 4, 4]
    assert 1.9 < float(distance.abs().max()) <= 2.001


def test_classes_are_numbered_anew(digits: Pictures) -> None:
    pair = only(digits, ("6", "9"))
    assert set(pair.train[1].tolist()) == {0, 1}
    nines = digits.train[0][digits.train[1] == 9]
    assert torch.equal(pair.train[0][pair.train[1] == 1], nines)


def test_brightness_tells_the_class_or_nothing(digits: Pictures) -> None:
    x, y = digits.reg
    added = (brightened((x, y), 10, 0.9)[0] - x)[:, 0, 0, 0]
    torch.testing.assert_close(added, -0.9 + 0.2 * y, atol=1e-5, rtol=0)
    at_random = (brightened((x, y), 10, 0.9, seed=3)[0] - x)[:, 0, 0, 0]
    assert abs(float(torch.corrcoef(torch.stack([at_random, y.float()]))[0, 1])) < 0.3


def test_a_planted_shift_is_found_and_nothing_where_none_was(digits: Pictures) -> None:
    start = {"shift": 0.3}
    found = [
        train(planted(digits, 0, shift=shift), start, "unrolled, 1 step", 0, 200)["magnitudes"]["shift"]
        for shift in (0.0, 1.5)
    ]
    assert found[0] < 0.3
    assert 0.9 < found[1] < 2.5


def test_a_shifted_held_out_set_raises_brightness_and_one_like_training_does_not(digits: Pictures) -> None:
    alike = Pictures(
        brightened(digits.train, 10, 1.0),
        brightened(digits.reg, 10, 1.0),
        brightened(digits.test, 10, 1.0, seed=0),
        digits.classes,
    )
    shifted = Pictures(alike.train, brightened(digits.reg, 10, 1.0, seed=1), alike.test, digits.classes)
    start = {"brightness": 0.1}
    before, after = (train(here, start, "unrolled, 1 step", 0, 200) for here in (alike, shifted))
    assert before["reg"] > before["test"] + 20
    assert before["magnitudes"]["brightness"] < 0.4 < after["magnitudes"]["brightness"]
    assert after["test"] > before["test"]


@pytest.mark.slow
def test_the_study_runs_and_says_what_it_found(tmp_path: Path) -> None:
    tracking = TrackingConfig(uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    study = Short(DataConfig(name="digits", limit=1000))
    result = reproduce(study, 1, tracking, tmp_path / "out", workers=2)
    methods = {row["method"] for row in result.rows if row["part"] == "planted"}
    assert methods == {"none", "the planted magnitudes", *ESTIMATORS}
    assert set(result.table[0]) == set(AugmentationMagnitudes.columns)
    said = " ".join(result.findings)
    assert all(words in said for words in (*ESTIMATORS, "6 and 9 under rotation", "A spurious background"))
    assert result.figure.stat().st_size > 10_000
    plain = json.loads(json.dumps(result.as_dict(), allow_nan=False))
    assert {"none/gap", "t1-t2/shift_ratio_median", "background/alike_reg"} <= set(plain["numbers"])


def test_mistakes_are_named() -> None:
    assert study_named("augmentation") is AugmentationMagnitudes
    with pytest.raises(UserError, match="'iris' has inputs of shape"):
        load_pictures(DataConfig(name="iris", reg_share=0.25), 0)
