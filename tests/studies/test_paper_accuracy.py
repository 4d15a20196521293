"""The study of accuracy: its claims can be shown and not be shown, its cases run, on Ray where they need it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from crossreg.services.data import DataConfig
from crossreg.studies.paper.accuracy import study as accuracy
from crossreg.studies.paper.accuracy.study import ALL_DATA, ARMS, PBT, PBT_MATCHED, PLAIN, STRONG, AccuracyStudy
from crossreg.studies.paper.pictures import PICTURES
from crossreg.studies.study import Measurement

BY_NAME = {claim.name: claim for claim in AccuracyStudy.claims}


def rows(setting: str, arm: str, *values: float, flops: float = 1e12) -> list[Measurement]:
    """A measurement a seed, with these accuracies."""
    scores = {"nll": 1.5, "ece": 0.05, "brier": 0.6, **({} if arm == ALL_DATA else {"nll_scaled": 1.4})}
    return [
        {"setting": setting, "arm": arm, "seed": seed, "accuracy": value, "chosen": None, "flops": flops, **scores}
        for seed, value in enumerate(values)
    ]


def all_rows(lead: float, seeds: int = 3) -> list[Measurement]:
    """Every arm, of which those that learn noise lead by so much."""
    found = []
    for setting in (PLAIN, STRONG):
        for arm in (*ARMS, *([PBT, PBT_MATCHED] if setting == PLAIN else [])):
            own = lead if arm in ("cross-reg", "noise alone", PBT) else 0.0
            spread = [0.001 * seed * (len(arm) % 4) for seed in range(seeds)]
            flops = {PBT: 8e12, "fixed noise": 4e12, "dropout": 3e12}.get(arm, 1e12)
            found += rows(setting, arm, *(0.4 + own + one for one in spread), flops=flops)
    return found


def shown(name: str, found: list[Measurement]) -> bool:
    verdict = BY_NAME[name].judge(found)
    assert verdict is not None
    return verdict.shown


def test_without_measurements_there_is_no_verdict() -> None:
    assert all(claim.judge([]) is None for claim in AccuracyStudy.claims)


def test_all_claims_can_be_shown_and_not_be_shown() -> None:
    found, study = all_rows(0.1), AccuracyStudy(DataConfig(name="pictures"))
    assert all(shown(name, found) for name in BY_NAME)
    assert study.outcome(found) == "reproduced"
    worse = all_rows(-0.1)
    for row in worse:
        row["flops"] = 1e12
        row["accuracy"] += 0.2 * (row["arm"] == PBT)
    assert not any(shown(name, worse) for name in BY_NAME)
    assert study.outcome(worse) == "not reproduced"


def test_two_seeds_show_nothing() -> None:
    found = all_rows(0.1, seeds=2)
    assert not any(shown(name, found) for name in BY_NAME)


@pytest.mark.parametrize(("behind", "expected"), [(-0.05, True), (0.004, True), (0.02, False)])
def test_as_accurate_as_a_population_within_a_margin(behind: float, expected: bool) -> None:
    mine = rows(PLAIN, "noise alone", *(0.5 - behind + one for one in (-0.001, 0.0, 0.001)))
    assert shown("pbt", mine + rows(PLAIN, PBT, 0.5, 0.5, 0.5, flops=8e12)) is expected
    assert not shown("pbt", mine + rows(PLAIN, PBT, 0.5, 0.5, 0.5, flops=2e12))


def test_table_figure_and_numbers(tmp_path: Path) -> None:
    study, found = AccuracyStudy(DataConfig(name="pictures")), all_rows(0.1)
    table = study.table(found)
    assert all(row.keys() == study.columns.keys() for row in table)
    by_arm = {(row["setting"], row["arm"]): row for row in table}
    assert by_arm[PLAIN, PBT]["ratio"] == "8.00"
    assert by_arm[PLAIN, "none"]["against"] == by_arm[PLAIN, ALL_DATA]["nll_scaled"] == "–"
    assert study.numbers(found)["flops/plain/PBT"] == 8e12
    study.figure(found).savefig(tmp_path / "figure.png")
    assert (tmp_path / "figure.png").stat().st_size > 10_000


def test_a_case_for_every_arm_that_the_model_can_do() -> None:
    cases = AccuracyStudy(DataConfig(name="pictures")).cases(2)
    assert len(cases) == 2 * (2 * len(ARMS) + 1)
    on_gpu = AccuracyStudy(DataConfig(name="pictures"), scale="paper").cases(1)
    assert "dropout" not in {case["arm"] for case in on_gpu}


def tiny(folder: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """Shrink the small scale to two epochs of a narrow network, and return what its cases have in common."""
    small = accuracy.SCALES["small"]
    small = small | {"data": {}}
    training = small["training"] | {"model_options": {"width": 4}, "rho": {"interval": 2}}
    short = {"training": training, "plain": {"epochs": 2}, "population": 2}
    monkeypatch.setitem(accuracy.SCALES, "small", small | short | {"strong": {"epochs": 2, "augment": "crop-flip"}})
    return {"scale": "small", "seed": 0, "root": str(folder)}


def test_trainings_are_measured(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case, study = tiny(squares, monkeypatch), AccuracyStudy(DataConfig(name="pictures", root=squares))
    arms = ("none", ALL_DATA, "fixed noise", "cross-reg")
    plain = {arm: study.solve(setting=PLAIN, arm=arm, **case)[0] for arm in arms}
    assert plain["fixed noise"]["chosen"] in (0.1, 0.25, 0.5, 1.0)
    assert plain["fixed noise"]["flops"] == pytest.approx(4 * plain["none"]["flops"])
    assert "nll_scaled" not in plain[ALL_DATA]
    assert plain[ALL_DATA]["flops"] > 1.2 * plain["none"]["flops"]  # trained on a quarter more
    strong = study.solve(setting=STRONG, arm="none", **case)[0]
    assert strong["nll"] != plain["none"]["nll"]
    found = [*plain.values(), strong]
    assert json.loads(json.dumps(found)) == found
    study.table(found)
    study.findings(found)
    study.figure(found)


def test_the_population_searches_as_the_baseline_does() -> None:
    from crossreg.baselines import METHODS
    from crossreg.studies.paper.accuracy import population

    assert type(METHODS["pbt"]) is population.PBT


@pytest.mark.ray
@pytest.mark.thorough
def test_a_population_runs_in_its_case(squares: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import ray

    from crossreg.baselines import METHODS
    from crossreg.studies.paper.accuracy import population

    case, study = tiny(squares, monkeypatch), AccuracyStudy(DataConfig(name="pictures", root=squares))
    was_there = ray.is_initialized()
    full, matched = study.solve(setting=PLAIN, arm=PBT, **case)
    assert ray.is_initialized() == was_there
    assert (full["arm"], matched["arm"]) == (PBT, PBT_MATCHED)
    learned = study.solve(setting=PLAIN, arm="cross-reg", **case)[0]
    assert 1.0 < full["flops"] / learned["flops"] <= 2.1
    assert matched["flops"] / learned["flops"] <= 1.1
    assert json.loads(json.dumps([full, matched])) == [full, matched]
    study.table([full, matched, learned])
    # the baseline itself, step by step the same
    monkeypatch.setattr(population, "PBT", lambda: METHODS["pbt"])
    settings = accuracy.SCALES["small"]
    data = PICTURES[settings["pictures"]].config(squares / "paper", 0)
    conditions = population.conditions_of(settings["training"] | settings[PLAIN], data, 0, 2)
    (baseline,) = population.run_population(conditions, 0, ["full"])
    assert baseline.test == {name: full[name] for name in baseline.test}
