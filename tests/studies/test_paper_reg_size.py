from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossreg.services.data import DataConfig
from crossreg.studies.paper import pictures
from crossreg.studies.paper.reg_size import study as reg_size
from crossreg.studies.paper.reg_size.claims import NEVER, SHARES, SMALL, overfitted
from crossreg.studies.paper.reg_size.study import GRANULARITIES, RegSize
from crossreg.studies.zero_flag.pairs import Pair

K = {"layer": 4, "unit": 1537}


def rows(exponent: float, *, loss: dict[str, float], seeds: int = 3) -> list[dict[str, Any]]:
    """Runs that overfit as about a power of k/m, and lose so much on test by a split of 1 %."""
    found = []
    for seed in range(seeds):
        for share in SHARES:
            size = round(10_000 * share)
            hard = 0.01 * seed + share
            common = {"share": share, "seed": seed, "size": size, "accuracy": 0.86}
            found.append(
                common
                | {"granularity": NEVER, "k": 0, "nll": 0.5, "reg_nll": 0.5 - hard, "temperature": 2, "sigma": []}
            )
            for name, k in K.items():
                gap = 0.1 * (k / size) ** (exponent + 0.02 * (seed - 1))
                nll = 0.4 + 0.001 * seed + (loss[name] if share == SMALL else 0)
                one = {"granularity": name, "k": k, "nll": nll, "reg_nll": nll - gap - hard}
                found.append(common | one | {"temperature": 1.5, "sigma": [0.1, 0.2, 0.3]})
    return found


def verdicts(found: list[dict[str, Any]]) -> dict[str, bool]:
    return {claim.name: verdict.shown for claim in RegSize.claims if (verdict := claim.judge(found)) is not None}


def test_overfitting_is_what_the_run_that_never_saw_the_split_does_not_have() -> None:
    found = overfitted(rows(0.5, loss={"layer": 0.0, "unit": 0.0}))
    assert len(found) == 3 * 2 * len(SHARES)
    for row in found:
        assert row["overfitting"] == pytest.approx(0.1 * (row["k"] / row["size"]) ** (0.5 + 0.02 * (row["seed"] - 1)))


def test_claims_are_shown_and_not_shown() -> None:
    good = rows(0.5, loss={"layer": 0.005, "unit": 0.1})
    assert verdicts(good) == dict.fromkeys(("square root", "one percent", "units overfit", "units lose"), True)
    assert RegSize().outcome(good) == "reproduced"
    bad = rows(0.2, loss={"layer": 0.03, "unit": 0.03})
    assert verdicts(bad) == {"square root": False, "one percent": False, "units overfit": True, "units lose": False}
    assert RegSize().outcome(bad) == "not reproduced"
    assert not verdicts(rows(0.0, loss={"layer": 0.0, "unit": 0.0}))["units overfit"]
    assert verdicts(rows(1.0, loss={"layer": 0.0, "unit": 0.0}))["square root"]
    assert not verdicts(rows(-0.5, loss={"layer": 0.0, "unit": 0.0}))["square root"]


def test_two_seeds_show_nothing() -> None:
    assert not any(verdicts(rows(0.5, loss={"layer": 0.0, "unit": 0.1}, seeds=2)).values())


def test_without_rows_there_is_no_verdict() -> None:
    assert all(claim.judge([]) is None for claim in RegSize.claims)
    assert RegSize().outcome([]) == "not judged"


def test_the_table_and_the_figure_show_every_size() -> None:
    study, found = RegSize(), rows(0.5, loss={"layer": 0.0, "unit": 0.1})
    table = study.table(found)
    assert [set(one) for one in table] == [set(RegSize.columns)] * 2 * len(SHARES)
    assert table[0]["size"] == "10 (0.1 %)"
    assert len(study.findings(found)) == 1 + len(RegSize.claims)
    assert math.isclose(study.numbers(found)["exponent"], 0.5, abs_tol=1e-6)
    study.figure(found).draw_without_rendering()


def test_the_largest_split_is_held_out_whatever_is_learned_from() -> None:
    cases = RegSize().cases(2)
    assert len(cases) == 2 * (1 + len(GRANULARITIES) * len(SHARES))
    assert len({(case["granularity"], case["share"], case["seed"]) for case in cases}) == len(cases)


def test_a_real_run_learns_from_a_small_split_and_one_never_sees_it(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def images(where: DataConfig) -> dict[str, np.ndarray]:
        random = np.random.default_rng(0)
        y = np.arange(700) % 4
        x = (random.integers(0, 80, (700, 8, 8)) + 40 * y[:, None, None]).astype("uint8")
        return {"x": x[:500], "y": y[:500], "x_test": x[500:], "y_test": y[500:]}

    tiny = {
        "pictures": "tiny",
        "aside": 100,
        "training": {
            "model": "mlp",
            "model_options": {"hidden": 16},
            "steps": 20,
            "batch_size": 50,
            "rho": {"interval": 5},
        },
    }
    monkeypatch.setitem(pictures.PICTURES, "tiny", Pair("tiny", "image", images))
    monkeypatch.setitem(reg_size.SCALES, "small", tiny)
    monkeypatch.setattr(RegSize, "pictures", {"small": ("tiny",)})
    study = RegSize(DataConfig(name="pictures", root=tmp_path))
    study.prepare()
    cases = {(case["granularity"], case["share"]): case for case in study.cases(1)}
    never = study.solve(**cases[NEVER, 0.2])
    assert [row["size"] for row in never] == [2, 2, 5, 15, 50, 100]
    assert all(row["nll"] == never[0]["nll"] for row in never)
    (layer,), (unit,) = (study.solve(**cases[name, 0.01]) for name in GRANULARITIES)
    assert (layer["size"], layer["k"], unit["k"]) == (5, 4, 49)
    assert layer["temperature"] != 1
    (one,) = overfitted([*never, layer])
    assert one["overfitting"] == pytest.approx(layer["nll"] - layer["reg_nll"] - never[2]["nll"] + never[2]["reg_nll"])
