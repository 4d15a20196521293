from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.studies.paper.drift import study as drift
from crossreg.studies.paper.drift.claims import TASKS, at_hand, at_the_end, forgetting
from crossreg.studies.paper.drift.study import Drift, permuted, rotated, stream
from crossreg.studies.paper.experiment import Experiment

ARMS = ("learned", "frozen", "fixed", "temperature", "none")
TINY = {"model": "mlp", "model_options": {"hidden": 8}, "batch_size": 8, "rho": {"interval": 2}}


def curve(task: int, moves: float, rises: float) -> list[dict[str, Any]]:
    """Ten updates, sigma after each switch a power of ten above that before, or as it was."""
    start, end = 0.1 * 10 ** (moves * (task - 1)), 0.1 * 10 ** (moves * task)
    return [
        {"step": 100 * task + 10 * (k + 1), "loss": 0.5 + rises * (k == 0), "temperature": 1.0,
         "sigma": [start if k == 0 and task else end, 0.2]}
        for k in range(10)
    ]  # fmt: skip


def rows(better: float, moves: float = 1.0, rises: float = 1.0, seeds: int = 3) -> list[dict[str, Any]]:
    """A learned run that forgets less, is better calibrated and has a smaller NLL by so much than all others."""
    found = []
    for seed in range(seeds):
        for name in drift.STREAMS:
            for arm in ARMS:
                worse = 0.0 if arm == "learned" else better * (1 + 0.1 * seed)
                for task in range(TASKS):
                    for tested in range(task + 1):
                        lost = (0.1 + worse) * (task - tested)
                        row = {"stream": name, "arm": arm, "seed": seed, "task": task, "tested": tested,
                               "accuracy": 0.8 - lost, "nll": 0.5 + worse, "brier": 0.3, "ece": 0.1 + worse,
                               "sigma": [0.1, 0.2], "temperature": 1.0}  # fmt: skip
                        found.append(row | ({"curve": curve(task, moves, rises)} if task == tested else {}))
    return found


def of_digits(study: Experiment, name: str, root: str, seed: int) -> Dataset:
    return load_data(DataConfig(name=name, seed=seed, limit=200))


def test_claims_can_be_shown_and_not_shown() -> None:
    study = Drift()
    good, bad = rows(0.05), rows(-0.05, moves=0.0)
    assert study.shown(good) == {f"shown/{claim.name}": 1.0 for claim in study.claims}
    assert study.shown(bad) == {f"shown/{claim.name}": 0.0 for claim in study.claims}
    assert study.outcome(good) == "left open by the paper"
    assert set(study.shown(rows(0.05, seeds=2)).values()) == {0.0}


def test_sigma_follows_only_where_loss_rises_too() -> None:
    assert Drift().shown(rows(0.05, rises=-0.1))["shown/follows"] == 0


def test_a_claim_holds_where_it_holds_in_every_stream() -> None:
    mixed = [row for row in rows(0.05) if row["stream"] == "rotated"]
    mixed += [row for row in rows(-0.05) if row["stream"] == "permuted"]
    shown = Drift().shown(mixed)
    assert shown.pop("shown/follows") == 1
    assert set(shown.values()) == {0.0}


def test_there_is_no_verdict_without_rows() -> None:
    study = Drift()
    assert study.outcome([]) == "left open by the paper"
    assert study.shown([]) == {}
    assert set(study.shown([row for row in rows(0.1) if row["arm"] == "learned"])) == {"shown/follows"}


def test_forgetting_is_what_earlier_tasks_lost_since_they_were_learned() -> None:
    mine = [row for row in rows(0.05, seeds=1) if row["stream"] == "rotated" and row["arm"] == "learned"]
    assert at_hand(mine, "accuracy")[0] == pytest.approx(0.8)
    assert at_the_end(mine, "accuracy")[0] == pytest.approx(0.6)
    assert forgetting(mine)[0] == pytest.approx(0.2)


def test_table_numbers_and_figure_come_of_rows() -> None:
    study, made_up = Drift(), rows(0.05)
    table = study.table(made_up)
    assert [row["arm"] for row in table] == [*ARMS, *ARMS]
    assert all(set(row) == set(study.columns) for row in table)
    assert table[0]["forgetting"] == "20.0 ± 0.0"
    numbers = study.numbers(made_up)
    assert json.loads(json.dumps(numbers, allow_nan=False)) == numbers
    assert len(study.findings(made_up)) == 1 + len(study.claims)
    figure = study.figure(made_up)
    figure.canvas.draw()
    assert len(figure.axes) == 8


def test_images_are_turned_counterclockwise() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 1, 8, 8)).astype("uint8")
    assert (rotated(x, 0.0) == x).all()
    assert (rotated(x, 90.0) == np.rot90(x, axes=(2, 3))).all()
    tilted = rotated(np.full_like(x, 200), 30.0)
    assert tilted.dtype == x.dtype
    assert tilted[0, 0, 0, 0] == 0  # a corner that comes from outside
    assert tilted[0, 0, 4, 4] == 200


def test_pixels_are_permuted_alike_in_all_images_channels_and_splits() -> None:
    x = np.random.default_rng(0).integers(0, 256, (3, 2, 5, 5)).astype("uint8")
    x[2], x[:, 1] = x[1], x[:, 0]
    one, other = permuted(x, 1), permuted(x, 2)
    assert (one[2] == one[1]).all()
    assert (one[:, 1] == one[:, 0]).all()
    assert (np.sort(one.reshape(3, 2, -1)) == np.sort(x.reshape(3, 2, -1))).all()
    assert (one != x).any()
    assert (one != other).any()
    assert (permuted(x, 1) == one).all()
    data = of_digits(Drift(), "digits", "", 0)
    tasks = stream(data, "permuted")
    assert len(tasks) == TASKS
    for before, after in ((data.train, tasks[1].train), (data.reg, tasks[1].reg), (data.test, tasks[1].test)):
        assert (permuted(before.x, 1) == after.x).all()
        assert after.y is before.y


def test_a_tiny_stream_is_learned(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(drift.SCALES, "small", {"pictures": "digits", "steps": 6, "training": TINY})
    monkeypatch.setattr(Drift, "load", of_digits)
    study = Drift(DataConfig(name="pictures", root=tmp_path))
    cases = [case for case in study.cases(1) if case["stream"] == "rotated"]
    assert len(cases) == len(study.cases(1)) // 2 == 3
    found = [row for case in cases for row in study.solve(**case)]
    assert json.loads(json.dumps(found, allow_nan=False)) == found
    by_arm = {arm: [row for row in found if row["arm"] == arm] for arm in ARMS}
    assert {len(mine) for mine in by_arm.values()} == {1 + 2 + 3 + 4}
    assert [row["accuracy"] for row in by_arm["none"]] == [row["accuracy"] for row in by_arm["temperature"]]
    assert [row["nll"] for row in by_arm["none"]] != [row["nll"] for row in by_arm["temperature"]]
    assert {row["temperature"] for row in by_arm["none"]} == {1.0}
    assert all(row["sigma"] == pytest.approx([0.2] * 3) for row in by_arm["fixed"])
    first = by_arm["learned"][0]["sigma"]
    assert all(row["sigma"] == pytest.approx(first) for row in by_arm["frozen"])
    assert by_arm["learned"][-1]["sigma"] != pytest.approx(first)
    assert len(study.table(found)) == len(ARMS)
    assert set(study.shown(found)) == {f"shown/{claim.name}" for claim in study.claims}
    study.figure(found).canvas.draw()
