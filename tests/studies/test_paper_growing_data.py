from __future__ import annotations

import json
import math
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from crossreg.services.data import DataConfig, Dataset, Split, load_data
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.paper.growing_data import study as growing_data
from crossreg.studies.paper.growing_data.study import SHARES, GrowingData, chosen, shares
from crossreg.studies.paper.stages import run_stages

TINY = {"pictures": "digits", "steps": 6, "training": {"model": "mlp", "model_options": {"hidden": 8}, "batch_size": 8}}


def measured(arm: str, seed: int, stage: int, nll: float, sigma: float, **other: Any) -> dict[str, Any]:
    looks = [{"step": 30 * stage + k, "loss": nll, "sigma": [sigma, 2 * sigma], "temperature": 1.0} for k in (10, 20)]
    found = {"arm": arm, "seed": seed, "fixed": None, "stage": stage, "images": round(9_000 * SHARES[stage])}
    scores = {"accuracy": 0.8, "nll": nll, "brier": 0.2, "ece": 0.02, "reg_nll": nll}
    return found | scores | {"sigma": [sigma, 2 * sigma], "temperature": 1.1, "curve": looks} | other


def rows(better: float, falls: float, seeds: int = 3) -> list[dict[str, Any]]:
    """A growing run that is better than all others by so much, and whose sigma falls by a factor at every stage."""
    found = []
    for seed in range(seeds):
        for stage in range(4):
            nll = 0.7 - 0.1 * stage + 0.001 * seed * stage
            found.append(measured("growing", seed, stage, nll, 0.4 / falls**stage))
            worse = nll + better + 0.002 * seed
            found += [measured(arm, seed, stage, worse, 0.4) for arm in ("fresh", "frozen", "stays")]
            found += [measured("grid", seed, stage, worse + abs(s - 0.2), s, fixed=s) for s in growing_data.SIGMAS]
    return found


def of_digits(study: Experiment, name: str, root: str, seed: int) -> Dataset:
    return load_data(DataConfig(name=name, seed=seed, limit=400))


def test_claims_can_be_shown_and_not_shown() -> None:
    study = GrowingData()
    good, bad = rows(0.05, 2.0), rows(-0.05, 0.5)
    assert study.shown(good) == {f"shown/{claim.name}": 1.0 for claim in study.claims}
    assert study.shown(bad) == {f"shown/{claim.name}": 0.0 for claim in study.claims}
    assert study.outcome(good) == "reproduced"
    assert study.outcome(bad) == "not reproduced"
    assert set(study.shown(rows(0.05, 2.0, seeds=2)).values()) == {0.0}


def test_as_good_means_within_the_margin() -> None:
    study = GrowingData()
    assert study.shown(rows(-0.01, 2.0))["shown/end"] == study.shown(rows(-0.01, 2.0))["shown/grid"] == 1
    assert study.shown(rows(-0.019, 2.0))["shown/end"] == 0  # its interval reaches beyond
    assert study.shown(rows(-0.01, 2.0))["shown/frozen"] == 0


def test_there_is_no_verdict_without_rows() -> None:
    study = GrowingData()
    assert study.outcome([]) == "not judged"
    assert study.shown([]) == {}
    alone = [row for row in rows(0.1, 2.0) if row["arm"] == "growing"]
    assert set(study.shown(alone)) == {"shown/falls"}


def test_a_grid_is_judged_by_held_out_data_alone() -> None:
    grid = [measured("grid", 0, 1, nll, 0.1, fixed=nll, reg_nll=reg) for nll, reg in ((0.5, 0.6), (0.7, 0.4))]
    (one,) = chosen(grid)
    assert one["nll"] == 0.7


def test_table_numbers_and_figure_come_of_rows() -> None:
    study, made_up = GrowingData(), rows(0.05, 2.0)
    table = study.table(made_up)
    assert len(table) == 5 * 4
    assert all(set(row) == set(study.columns) for row in table)
    grid = next(row for row in table if row["arm"] == "grid")
    assert grid["sigma"] == "0.2, 0.4"
    numbers = study.numbers(made_up)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert numbers["sigma/growing/100"] == pytest.approx(0.05 * math.sqrt(2))
    assert len(study.findings(made_up)) == 1 + len(study.claims)
    figure = study.figure(made_up)
    figure.canvas.draw()
    assert len(figure.axes) == 4


def test_shares_are_nested_and_the_rest_is_one_and_the_same() -> None:
    data = of_digits(GrowingData(), "digits", "", 0)
    parts = shares(data, 0)
    assert [len(part.train) for part in parts] == [round(share * len(data.train)) for share in SHARES]
    for less, more in pairwise(parts):
        assert (more.train.x[: len(less.train)] == less.train.x).all()
        assert less.reg is more.reg is data.reg
        assert less.mean is data.mean
    assert sorted(parts[-1].train.y) == sorted(data.train.y)


def test_a_tiny_study_is_trained(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(
        growing_data.SCALES, "small", {**TINY, "training": {**TINY["training"], "rho": {"interval": 2}}}
    )
    monkeypatch.setattr(growing_data, "SIGMAS", (0.1, 0.5))
    monkeypatch.setattr(GrowingData, "load", of_digits)
    study = GrowingData(DataConfig(name="pictures", root=tmp_path))
    cases = study.cases(1)
    assert len(cases) == 1 + 4 + 3
    found = [row for case in cases for row in study.solve(**case)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    growing, frozen, stays = ([row for row in found if row["arm"] == a] for a in ("growing", "frozen", "stays"))
    assert [row["images"] for row in growing] == sorted({row["images"] for row in found})
    assert {row["images"] for row in stays} == {growing[0]["images"]}
    assert all(row["sigma"] == pytest.approx(growing[0]["sigma"]) for row in frozen)
    assert growing[1]["sigma"] != growing[0]["sigma"] != stays[0]["sigma"]
    assert frozen[-1]["temperature"] != frozen[0]["temperature"]
    assert [look["step"] for look in growing[1]["curve"]] == [8, 10, 12]
    assert len(study.table(found)) == 4 + 3 + 3 + 4 + 4
    assert set(study.shown(found)) == {f"shown/{claim.name}" for claim in study.claims}
    study.figure(found).canvas.draw()


def test_a_run_that_goes_on_from_the_first_stage_is_the_run_itself() -> None:
    config = {**TINY["training"], "rho": {"interval": 2}, "regularizers": {"noise": {}, "temperature": {}}}
    data = of_digits(GrowingData(), "digits", "", 0)
    some = shares(data, 0)[2:]
    # held-out data that change too
    some[1] = Dataset(**{**vars(some[1]), "reg": Split(data.reg.x[::-1].copy(), data.reg.y[::-1].copy())})
    whole = run_stages(config, some, 6, 0, growing_data._look, reg=True)
    again = run_stages(config, some, 6, 0, growing_data._look, reg=True, state=whole.first)
    assert again.rows == whole.rows[1:]


def test_a_look_is_a_mean_over_the_end_of_a_stage() -> None:
    data, seen = of_digits(GrowingData(), "digits", "", 0), []
    config = {**TINY["training"], "rho": {"interval": 2}, "regularizers": {"noise": {}}}

    def look(trainer: Any, stage: int) -> list[dict[str, Any]]:
        seen.append((trainer.step, stage))
        return [{"stage": stage, "step": float(trainer.step), "last": [trainer.step]}]

    found = run_stages(config, [data, data], 40, 0, look).rows
    assert seen == [(step, step // 41) for step in (34, 36, 38, 40, 74, 76, 78, 80)]
    assert [(row["step"], row["last"]) for row in found] == [(37.0, [40]), (77.0, [80])]
