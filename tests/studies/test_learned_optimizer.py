"""The study of learned optimizers: measures of flatness, verdicts, and one case of each kind, small."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig
from crossreg.studies.learned_optimizer import scenes, solving
from crossreg.studies.learned_optimizer.claims import CLAIMS
from crossreg.studies.learned_optimizer.measures import sharpness, top_eigenvalue
from crossreg.studies.learned_optimizer.scenes import SEEN, SETTINGS
from crossreg.studies.learned_optimizer.study import LearnedOptimizerStudy
from crossreg.studies.learned_optimizer.summed import at, chosen_rate, diverged, matched

A = torch.diag(torch.tensor([4.0, 1.0, -0.5])).double()


def quadratic(theta: Tensor) -> Tensor:
    return 0.5 * theta @ A @ theta


def test_flatness_of_a_quadratic() -> None:
    theta = torch.tensor([0.3, -0.2, 0.1]).double()
    assert top_eigenvalue(quadratic, theta) == pytest.approx(4, rel=1e-4)
    # by far the highest point of a small ball around the origin is along the first axis
    assert sharpness(quadratic, 1e-3 * theta, 0.5) == pytest.approx(4 / 2 * 0.5**2, rel=0.01)


def row(what: str, rule: str, loss: Any, seed: int, inner: int, factor: int = 1, **more: Any) -> dict[str, Any]:
    curve = [
        {"step": step, "train_loss": train, "test_loss": 2 * train, **{k: more.get("flat", 1.0) for k in MEASURES}}
        for step, train in ((0, 2.3), (10, 1.0), (100, 0.1), (200, 0.05))
    ]
    return {
        "what": what, "rule": rule, "loss": loss, "seed": seed, "inner": inner, "setting": SEEN.name, "factor": factor,
        "lr": 0.01, "accuracy": 0.9, "test_loss": 0.3, "val_loss": 0.3, "train_loss": 0.05, "start_loss": 2.3,
        "norm": 10.0, "fallen_back": None, "seconds": 60.0, "curve": curve,
        **{k: v for k, v in more.items() if k != "flat"},
    }  # fmt: skip


MEASURES = ("sharpness", "relative_sharpness", "eigenvalue", "norm")


def rows(lead: float, flat: float = 1.0) -> list[dict[str, Any]]:
    """SAM leads plain by so much accuracy, and is so much as sharp; five seeds of five."""
    found = []
    for seed in range(5):
        for inner in range(5):
            wiggle = 1e-4 * ((seed * 7 + inner * 3) % 5)
            for factor in (1, 2):
                found.append(row("learned", "mlp", "train", seed, inner, factor, accuracy=0.9 + wiggle))
                more = {"accuracy": 0.9 + lead - wiggle, "flat": flat + wiggle}
                found.append(row("learned", "mlp", "sam", seed, inner, factor, **more))
    for rate, loss in ((0.001, 0.5), (0.01, 0.2)):
        for name in ("adam", "adamw"):
            found += [row("other", name, rate, 0, i, f, lr=rate, val_loss=loss) for i in range(5) for f in (1, 2)]
    return found


def verdicts(given: list[dict[str, Any]]) -> dict[str, bool]:
    return {claim.name: verdict.shown for claim in CLAIMS if (verdict := claim.judge(given)) is not None}


def test_claims_need_an_interval_and_seeds() -> None:
    assert verdicts(rows(0.01)) == {"accuracy": True, "flatter": False, "transfer": True, "adamw": True}
    assert verdicts(rows(-0.01, flat=0.8)) == {"accuracy": False, "flatter": True, "transfer": False, "adamw": True}
    few = [one for one in rows(0.01, 0.8) if one["seed"] < 4]
    assert not any(verdicts(few)[name] for name in ("accuracy", "flatter", "transfer"))
    broken = [{**one, "norm": 101.0} if one["factor"] == 2 and one["what"] == "learned" else one for one in rows(0.01)]
    assert not verdicts(broken)["adamw"]


def test_rates_are_chosen_by_what_is_kept_for_that_and_divergence_is_counted() -> None:
    given = rows(0.0)
    assert chosen_rate(given, "adamw", at(1)) == 0.01
    sound = given[0]
    bad = [
        {**sound, **change}
        for change in ({"train_loss": math.nan}, {"train_loss": 3.0}, {"norm": 101.0}, {"fallen_back": 30})
    ]
    assert diverged([sound, *bad], given) == 4


def test_flatness_is_compared_at_equal_training_loss() -> None:
    """One is half as sharp at any training loss, and has come further."""
    one, other = (row("learned", "mlp", loss, 0, 0) for loss in ("sam", "train"))
    for look in other["curve"]:
        look["sharpness"] = look["train_loss"] ** 2
    one["curve"] = [
        {**look, "train_loss": look["train_loss"] / 3, "sharpness": (look["train_loss"] / 3) ** 2 / 2}
        for look in other["curve"]
    ]
    assert matched([one, other], "mlp", "sam", "train", "sharpness") == [pytest.approx(math.log(0.5), abs=1e-6)]


@pytest.fixture
def small(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    generator, found = np.random.default_rng(0), {}
    for name in {setting.data for setting in SETTINGS}:
        x = generator.standard_normal((400, 1, 8, 8)).astype("float32")
        y = x.reshape(400, -1)[:, :10].argmax(1)
        found |= {f"{name}/x": x[:300], f"{name}/y": y[:300], f"{name}/x_test": x[300:], f"{name}/y_test": y[300:]}
    path = scenes.data_file(tmp_path)
    path.parent.mkdir()
    np.savez(path, **found)
    scale = dataclasses.replace(
        scenes.SCALES["small"], iterations={"mlp": 2}, inner=1, longest=3, settings=SETTINGS[:2]
    )
    monkeypatch.setitem(scenes.SCALES, "small", scale)
    for module in (scenes, solving):
        monkeypatch.setattr(module, "HORIZON", 8)
    return tmp_path


def test_a_case_of_each_kind_and_what_is_made_of_them(small: Path) -> None:
    study = LearnedOptimizerStudy(DataConfig(name="digits", root=small))
    study.prepare()
    cases = study.cases(1)
    assert {case["what"] for case in cases} == {"cost", "learned", "other"}
    wanted = [case for case in cases if case["what"] == "learned" or case["loss"] == 0.01]
    found = [measured for case in wanted for measured in study.solve(**case)]
    assert {one["factor"] for one in found} == {1, 2, 3}
    assert all(one["train_loss"] < one["start_loss"] for one in found if one["rule"] == "adamw")
    table = study.table(found)
    assert [line["optimizer"] for line in table[:3]] == ["mlp, train", "mlp, held-out", "mlp, sam"]
    assert all(set(line) == set(study.columns) for line in table)
    assert len(study.findings(found)) == 5
    assert study.numbers(found)["accuracy/mlp/sam"] > 0
    assert len(study.figure(found).axes) == 3


def test_what_it_does_not_have_is_refused() -> None:
    with pytest.raises(UserError, match="has no pairs to choose from"):
        LearnedOptimizerStudy(only=["digits"])
