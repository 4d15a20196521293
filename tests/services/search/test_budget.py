from __future__ import annotations

import dataclasses
import heapq
import math
import random
from pathlib import Path
from typing import Any, get_args

import pytest
import torch

from crossreg import UserError
from crossreg.services.comparison.config import Unit, factor_of
from crossreg.services.search.budget import Meter, Plan
from crossreg.services.search.spec import Record
from crossreg.services.search.trial import States, Trial
from crossreg.services.training.assemble import build_trainer
from crossreg.training.compute import Cost
from tests.services.search.population import LEARNED, config, digits, sigma, spec

METHODS: dict[str, dict[str, Any]] = {
    "crossreg": {"regularizers": LEARNED},
    "crossreg, own batch and K": {
        "regularizers": LEARNED,
        "rho": {"interval": 3, "samples": 4, "batch_size": 16},
    },
    "crossreg, default interval": {"regularizers": LEARNED, "rho": {}},
    "crossreg, one layer fixed": {"regularizers": {**LEARNED, "noise/00_norm1": 0.3}},
    "t1-t2": {"regularizers": LEARNED, "rho": {"interval": 3, "estimator": "t1-t2"}},
    "unrolled": {"regularizers": LEARNED, "rho": {"interval": 3, "estimator": "unrolled", "unroll_steps": 2}},
    "implicit": {"regularizers": LEARNED, "rho": {"interval": 3, "estimator": "implicit", "neumann_terms": 2}},
    "t1-t2, own batch": {"regularizers": LEARNED, "rho": {"interval": 3, "estimator": "t1-t2", "batch_size": 16}},
    "terms": {
        "regularizers": {**LEARNED, "l2": {"start": 0.01}, "label_smoothing": {"start": 0.1}},
        "rho": {"interval": 3},
    },
    "augmentation": {"regularizers": {**LEARNED, "shift": {"start": 0.5}}, "rho": {"interval": 3}},
    "augmentation alone": {"regularizers": {"shift": {"start": 0.5}}, "rho": {"interval": 3}},
    "norms": {"regularizers": ["norm"]},
    "levels": {"regularizers": ["l1_level"]},
    "fixed": {},
    "fixed, member of a search": {"final_test": False, "interim_test": 50},
    "none": {"regularizers": {}},
    "mc_dropout": {"regularizers": {"dropout": 0.2}, "mc_dropout": True},
    "sam": {"regularizers": {}, "optimizer": {"name": "sam", "schedule": "cosine"}},
}
COUNTS = ("examples", "backward_examples", "flops")


def plan_of(select: bool = False, **changes: Any) -> Plan:
    options = config(**changes)
    return Plan(options, digits(), select)


@pytest.mark.parametrize("select", [False, True], ids=["trained once", "selected"])
@pytest.mark.parametrize("steps", [7, 30])
@pytest.mark.parametrize("method", METHODS)
def test_a_plan_is_what_the_ledger_counts(method: str, steps: int, select: bool) -> None:
    changes = {**METHODS[method], "steps": steps}
    if method == "sam":
        pytest.importorskip("pytorch_optimizer")
    split = ("reg",) if select else ()
    trainer = build_trainer(config(**changes), digits(), torch.device("cpu"), selection=split)
    trainer.fit()
    assert trainer.ledger is not None
    counted = trainer.ledger.as_metrics()
    cost = plan_of(select, **changes).cost(steps)
    assert {name: getattr(cost, name) for name in COUNTS} == {name: counted[f"usage/{name}"] for name in COUNTS}
    assert plan_of(not select, **changes).cost(steps).flops != cost.flops


def test_the_ledger_adds_up_against_a_hand_count(tmp_path: Path) -> None:
    """A multilayer perceptron 64 -> 32 -> 32 -> 10, 20 theta steps of 32 examples, sigma updated at every fifth."""
    forward = 2 * (64 * 32 + 32 * 32 + 32 * 10)  # 2 a multiply-add; normalization, ReLU and bias are not counted
    theta = 3 * forward - 2 * 64 * 32  # backward: gradients of weights and of inputs, but not of the images
    theta_examples = 20 * 32
    k, updates, reg_batch = 3, 20 // 5, 32
    rho_forward, rho_backward = updates * (2 * k - 1) * reg_batch, updates * k * reg_batch
    # of theta no weight gradients, and nothing before the first noise, where one forward pass is for all
    after = forward - 2 * 64 * 32
    rho_flops = updates * reg_batch * 2 * 64 * 32 + (rho_forward + rho_backward) * after
    # intervals of 5 steps: three evaluations of 2 draws and a last one of 4, of the regularization split alone
    selection = (3 * 2 + 4) * len(digits().reg)
    assert len(digits().reg) > 0
    trial_spec = spec(select=True, regularizers=LEARNED, steps=20)
    trial = Trial(trial_spec, {}, {trial_spec.data: digits()}, States(tmp_path))
    records = [trial.advance() for _ in range(4)]
    total = sum((record.cost for record in records), Cost())
    assert total.examples == theta_examples + rho_forward + selection
    assert total.backward_examples == theta_examples + rho_backward
    assert total.flops == theta_examples * theta + rho_flops + selection * forward
    assert total.worker_seconds > 0
    # reports on the test split are in no total: without selection nothing but training is
    report = spec(select=False, regularizers=LEARNED, steps=20)
    other = Trial(report, {}, {report.data: digits()}, States(tmp_path))
    unselected = sum((other.advance().cost for _ in range(4)), Cost())
    assert unselected.examples == theta_examples + rho_forward
    assert unselected.flops == total.flops - selection * forward


@pytest.mark.parametrize("unit", ["flops", "examples"])
@pytest.mark.parametrize("method", ["crossreg", "fixed", "sam"])
def test_steps_within_a_budget_are_as_many_as_fit(method: str, unit: str) -> None:
    plan = plan_of(select=True, **METHODS[method])
    for steps in (1, 2, 13, 100, 1000):
        exact = getattr(plan.cost(steps), unit)
        for amount in (exact, exact * 1.001, exact * 1.7):
            found = plan.steps_within(amount, unit)
            assert getattr(plan.cost(found), unit) <= amount < getattr(plan.cost(found + 1), unit)
    assert plan.steps_within(getattr(plan.cost(1000), unit), unit) == 1000


def test_sam_pays_for_half_the_steps() -> None:
    plain, twice = plan_of(regularizers={}), plan_of(**METHODS["sam"])
    amount = plain.cost(1000).flops
    assert (plain.steps_within(amount, "flops"), twice.steps_within(amount, "flops")) == (1000, 500)


def test_a_budget_that_pays_for_no_step_is_refused() -> None:
    plan = plan_of()
    with pytest.raises(UserError, match=r"does not pay for one step.*use a larger budget"):
        plan.steps_within(plan.cost(1).flops - 1, "flops")
    assert plan.steps_within(plan.cost(1).flops, "flops") == 1


def test_a_model_that_cannot_be_counted_is_named() -> None:
    plan = plan_of()
    plan.flops = dict.fromkeys(plan.flops, math.nan)
    with pytest.raises(UserError, match=r"FLOPs of model 'mlp' cannot be counted; use --unit examples"):
        plan.steps_within(1e12, "flops")
    assert plan.steps_within(plan.cost(5).examples, "examples") == 5


def test_budget_names() -> None:
    assert [factor_of(name, 8) for name in ("matched", "full", "2.5", "1e1")] == [1, 8, 2.5, 10]
    for wrong in ("0", "-1", "nan", "inf", "half", ""):
        with pytest.raises(UserError, match="allowed are matched, full, or a positive factor"):
            factor_of(wrong, 8)
    assert set(get_args(Unit)) <= {field.name for field in dataclasses.fields(Cost)}


def record(cost: Cost) -> Record:
    return Record(
        state="", parent=None, spec="", until=1, given=sigma(1), hyperparameters={}, scores={}, metrics=[],
        cost=cost,
        peak_memory_bytes=0, began=0, ended=0,
    )  # fmt: skip


def spend(limit: float, costs: list[float], num_trials: int, slots: int, flag: Path, seed: int) -> tuple[float, int]:
    """Run trials of intervals that cost so much side by side, each as fast as chance has it; stop them by the flag.

    Returns:
        What was spent, and the intervals.
    """
    rng = random.Random(seed)
    meter = Meter("flops", limit, slots, flag)
    done, spent, intervals = [0] * num_trials, 0.0, 0
    waiting, finished = list(range(num_trials)), 0
    running: list[tuple[float, int]] = []
    now = 0.0
    while True:
        while waiting and len(running) < slots and not flag.exists():
            heapq.heappush(running, (now + rng.uniform(0.5, 2), waiting.pop(0)))
        if not running:
            return spent, intervals
        now, trial = heapq.heappop(running)
        cost = costs[done[trial]]
        done[trial] += 1
        spent, intervals = spent + cost, intervals + 1
        finished += done[trial] == len(costs)
        meter.add(record(Cost(flops=cost)), num_trials - finished)
        if done[trial] < len(costs) and not flag.exists():
            heapq.heappush(running, (now + rng.uniform(0.5, 2), trial))


@pytest.mark.parametrize("slots", [1, 4, 16])
@pytest.mark.parametrize("costs", [[10.0] * 6, [10.0] * 5 + [16.0]], ids=["equal", "last is dearer"])
def test_a_meter_stops_within_one_interval_of_the_limit(costs: list[float], slots: int, tmp_path: Path) -> None:
    """Whatever the order in which intervals end; a trial's last evaluation takes more draws, so it costs more.

    That is learned from the first trial that ends, so the limit is beyond what as many trials as run at once take.
    """
    for seed in range(60):
        limit = 120.0 * slots + 7 * seed
        spent, intervals = spend(limit, costs, 64, slots, tmp_path / f"{seed}", seed)
        assert spent <= limit + max(costs)
        # and it does not stop long before: what was on its way is all that may be missing
        assert spent > limit - slots * max(costs)
        assert intervals > slots


def test_a_meter_that_is_not_reached_stops_nothing(tmp_path: Path) -> None:
    assert spend(10 * 64 * 6 + 100, [10.0] * 6, 64, 4, tmp_path / "flag", 0) == (10 * 64 * 6, 64 * 6)
    assert not (tmp_path / "flag").exists()
