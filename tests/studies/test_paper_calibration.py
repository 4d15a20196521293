"""The study of calibration: its claims can be shown and not be shown, its corruptions corrupt, its cases run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from crossreg.services.data import DataConfig
from crossreg.studies.paper.calibration import study as calibration
from crossreg.studies.paper.calibration.claims import CLAIMS
from crossreg.studies.paper.calibration.corruptions import CORRUPTIONS, SEVERITIES, corrupt, flip
from crossreg.studies.paper.calibration.study import TRAININGS, CalibrationStudy
from crossreg.studies.study import Measurement

BY_NAME = {claim.name: claim for claim in CLAIMS}
SCORES = ("accuracy", "nll", "brier", "ece", "ece_adaptive")
ARMS = ("none", "temperature", "fixed noise", "MC dropout", "ensemble", "cross-reg", "noise alone")


def rows(
    arm: str, reg: str = "clean", seeds: int = 3, curve: tuple[float, ...] = (), **given: float
) -> list[Measurement]:
    """A measurement a seed, with scores that differ by a thousandth from seed to seed."""
    usual = {"accuracy": 0.4, "nll": 1.6, "brier": 0.7, "ece": 0.1, "ece_adaptive": 0.1}
    found = []
    for seed in range(seeds):
        mine = {key: value + 0.001 * seed * (len(arm) % 3) for key, value in (usual | given).items()}
        both = {**{f"{key}_scaled": mine[key] for key in SCORES}, **mine}
        shift = [
            {"kind": kind, "severity": severity, **{key: one + 0.02 * severity for key, one in both.items()}}
            for kind in CORRUPTIONS
            for severity in SEVERITIES
        ]
        looks = [
            {"step": step, "epoch": step / 2, "test/ece": value + 0.001 * seed, "test/nll": 1.0, "test/accuracy": 0.4}
            for step, value in enumerate(curve)
        ]
        found.append(
            {"arm": arm, "reg": reg, "seed": seed, "chosen": None, "flops": 1e12, "fitted": 1.3}
            | both
            | {"curve": looks, "shift": shift if reg == "clean" else []}
        )
    return found


def shown(name: str, found: list[Measurement]) -> bool:
    verdict = BY_NAME[name].judge(found)
    assert verdict is not None
    return verdict.shown


def all_rows(seeds: int = 3) -> list[Measurement]:
    """Every arm, as the paper would have it."""
    found = [
        row
        for arm, ece, nll in zip(
            ARMS, (0.16, 0.06, 0.12, 0.08, 0.035, 0.03, 0.03), (1.9, 1.7, 1.8, 1.7, 1.4, 1.5, 1.5), strict=True
        )
        for row in rows(
            arm,
            seeds=seeds,
            ece=ece,
            nll=nll,
            accuracy=0.4 + 0.1 * (arm in ("cross-reg", "noise alone")),
            curve=(0.05, 0.1, 0.1, 0.05, 0.04) if arm in ("cross-reg", "noise alone") else (0.05, 0.05, 0.1, 0.1, 0.16),
        )
    ]
    for arm in ("temperature", "cross-reg", "noise alone"):
        found += rows(arm, "blurred", seeds, ece=0.2) + rows(arm, "20 % flipped", seeds, ece=0.15)
    return found


def test_without_measurements_there_is_no_verdict() -> None:
    assert all(claim.judge([]) is None for claim in CLAIMS)
    assert CalibrationStudy(DataConfig(name="pictures")).outcome([]) == "not judged"


def test_all_claims_can_be_shown() -> None:
    found = all_rows()
    assert {name for name in BY_NAME if not shown(name, found)} == {"corrupted, ensemble"}
    assert CalibrationStudy(DataConfig(name="pictures")).outcome(found) == "reproduced"


def test_two_seeds_show_nothing() -> None:
    found = all_rows(seeds=2)
    assert not any(shown(name, found) for name in BY_NAME)


@pytest.mark.parametrize("name", BY_NAME)
def test_no_claim_is_shown_where_all_arms_are_alike(name: str) -> None:
    alike = [row for arm in ARMS for row in rows(arm, curve=(0.05, 0.05, 0.05, 0.05))]
    alike += [row for arm in ARMS for reg in ("blurred", "20 % flipped") for row in rows(arm, reg)]
    for row in alike:
        row.update({key: row[key] + 0.01 * (row["seed"] - 1) * len(row["arm"]) for key in ("ece", "nll", "nll_scaled")})
    assert not shown(name, alike)


@pytest.mark.parametrize(("worse", "expected"), [(-0.02, True), (0.005, True), (0.02, False)])
def test_as_good_as_an_ensemble_within_a_margin(worse: float, expected: bool) -> None:
    assert shown("ensemble", rows("noise alone", ece=0.05 + worse) + rows("ensemble", ece=0.05)) is expected


def test_half_of_the_raw_error_is_not_far_below() -> None:
    assert not shown("online", rows("noise alone", ece=0.09) + rows("none", ece=0.16))
    assert shown("online", rows("noise alone", ece=0.05) + rows("none", ece=0.16))


def test_the_fall_is_counted_from_a_fifth_of_the_training() -> None:
    # the untrained network is well calibrated, which is no merit
    assert shown("falls", rows("noise alone", curve=(0.01, 0.1, 0.1, 0.05, 0.05)))
    assert not shown("falls", rows("noise alone", curve=(0.2, 0.05, 0.06, 0.07, 0.08)))


def test_table_figure_and_numbers(tmp_path: Path) -> None:
    study, found = CalibrationStudy(DataConfig(name="pictures")), all_rows()
    table = study.table(found)
    assert [row["arm"] for row in table[: len(ARMS)]] == list(ARMS)
    assert all(row.keys() == study.columns.keys() for row in table)
    assert table[-1]["shift"] == "–"
    assert study.numbers(found)["shown/online"] == 1.0
    study.figure(found).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_case_for_every_training_that_the_model_can_do() -> None:
    assert len(CalibrationStudy(DataConfig(name="pictures")).cases(2)) == 2 * len(TRAININGS)
    on_gpu = CalibrationStudy(DataConfig(name="pictures"), scale="paper").cases(1)
    assert {case["training"] for case in on_gpu} == {training for training, _ in TRAININGS} - {"MC dropout"}


@pytest.mark.parametrize("kind", CORRUPTIONS)
def test_each_severity_is_farther_from_the_image(kind: str) -> None:
    waves = torch.sin(torch.arange(16.0)[:, None] * torch.linspace(0.2, 2, 12).view(-1, 1, 1, 1) + torch.arange(16.0))
    images = (120 + 100 * waves).expand(12, 3, 16, 16).to(torch.uint8)
    found = [corrupt(images, kind, severity) for severity in SEVERITIES]
    assert all(one.shape == images.shape and one.dtype == torch.uint8 for one in found)
    apart = [float((one.float() - images.float()).square().mean()) for one in found]
    assert apart[0] > 0
    assert apart == sorted(apart)
    assert len(set(apart)) == len(apart)
    assert torch.equal(found[2], corrupt(images, kind, 3))


def test_a_share_of_labels_is_flipped_to_other_classes() -> None:
    targets = np.arange(100) % 10
    found = flip(targets, 0.2, 10, seed=0)
    assert (found != targets).sum() == 20
    assert set(found) <= set(range(10))
    assert (targets == np.arange(100) % 10).all()


def tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Shrink the small scale to two epochs of a narrow network, and return what its cases have in common."""
    small = calibration.SCALES["small"]
    small = small | {"data": {}}
    training = small["training"] | {"epochs": 2, "model_options": {"width": 4}, "rho": {"interval": 2}}
    monkeypatch.setitem(
        calibration.SCALES, "small", small | {"training": training, "points": 2, "followed": 20, "shifted": 10}
    )
    return {"scale": "small", "seed": 0, "root": str(folder)}


def test_trainings_are_measured(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, study = tiny(squares, monkeypatch), CalibrationStudy(DataConfig(name="pictures", root=squares))
    members = study.solve(training="members", reg="clean", **case)
    assert [(row["arm"], row["reg"]) for row in members] == [
        ("none", "clean"), ("temperature", "clean"), ("temperature", "blurred"), ("temperature", "20 % flipped"),
        ("ensemble", "clean"),
    ]  # fmt: skip
    raw, scaled, blurred, _, ensemble = members
    assert scaled["nll"] == raw["nll_scaled"]
    assert scaled["accuracy"] == raw["accuracy"]
    assert blurred["nll"] != scaled["nll"]
    assert ensemble["nll"] != raw["nll"]
    assert ensemble["flops"] == 5 * raw["flops"]
    dropout = study.solve(training="MC dropout", reg="clean", **case)[0]
    assert dropout["chosen"] in (0.1, 0.2, 0.4)
    assert dropout["flops"] == pytest.approx(3 * raw["flops"])
    learned = study.solve(training="cross-reg", reg="blurred", **case)[0]
    assert learned["shift"] == []
    assert learned["flops"] > raw["flops"]
    assert len(raw["shift"]) == len(CORRUPTIONS) * len(SEVERITIES)
    assert len(learned["curve"]) == 3
    found = [*members, dropout, learned]
    assert json.loads(json.dumps(found)) == found
    study.table(found)
    study.findings(found)
    study.figure(found)
