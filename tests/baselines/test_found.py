"""A comparison with the run that finds its length, as `crossreg train` has it without flags."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
from torch import nn

from crossreg.baselines import METHODS
from crossreg.core.errors import UserError
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job, run_jobs
from crossreg.services.search.spec import TrialSpec
from crossreg.services.training.assemble import build_model
from crossreg.services.training.config import TrainConfig
from tests.baselines.conftest import POPULATION, make_conditions


def found(**changes: object) -> Conditions:
    return make_conditions(optimizer={"schedule": "found"}, batch_size=None, steps=None, epochs=6, **changes)


def bare(*, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """A network of one's own, without dropout and normalization."""
    return nn.Sequential(nn.Flatten(), nn.Linear(math.prod(input_shape), num_outputs))


def asked(name: str, conditions: Conditions) -> list[TrialSpec]:
    method = METHODS[name]
    run = method.run(conditions, 0, conditions.budget(method.budgets(["full"])[0], 0))
    specs = next(run).specs
    run.close()
    return specs


def test_the_reference_is_what_train_does_and_rivals_are_one_network_with_a_cosine_schedule() -> None:
    conditions = found()
    (own,), (plain,) = asked("crossreg", conditions), asked("none", conditions)
    assert own.config.finds_length
    assert own.config.ensemble == 4
    assert own.config == conditions.reference(0)
    assert (plain.config.ensemble, plain.config.optimizer.schedule) == (1, "cosine")
    assert (plain.config.optimizer.lr, plain.config.weight_decay) == (1e-3, 0.01)
    assert plain.config.batch_size * 4 == own.config.batch_size
    assert set(plain.config.regularizers) == {"weight_decay"}
    examples = [spec.steps * spec.config.batch_size for spec in (own, plain)]
    assert examples[0] <= examples[1] <= 1.2 * examples[0]  # which pays for its checks


def test_searches_look_through_what_people_tune_where_nothing_is_learned() -> None:
    conditions = found()
    assert set(conditions.space) == {"noise/00_norm1", "noise/01_norm2", "dropout", "weight_decay"}
    for spec in asked("pbt", conditions):
        assert set(spec.config.regularizers) == {"noise", "dropout", "weight_decay"}
        assert spec.config.learned == []
    said = found(regularizers={"weight_decay": 0.3})
    assert "weight_decay" not in said.space
    assert {spec.config.weight_decay for spec in asked("pbt", said)} == {0.3}


def test_what_is_learned_beside_the_length_is_what_is_searched() -> None:
    conditions = found(regularizers={"noise": {}})
    assert set(conditions.space) == {"noise/00_norm1", "noise/01_norm2"}
    assert conditions.reference(0).learned == ["noise"]


@pytest.mark.parametrize("name", ["crossreg-refit", "t1-t2"])
def test_a_method_that_repeats_a_schedule_is_refused_with_the_way_out(name: str) -> None:
    with pytest.raises(UserError, match=rf"method '{name}' .* takes a given length; use --schedule cosine"):
        asked(name, found())


@pytest.mark.parametrize(("model", "missing"), [("resnet18", "dropout"), ("tests.baselines.test_found:bare", "noise")])
def test_a_model_is_searched_over_what_it_has_a_place_for(model: str, missing: str) -> None:
    conditions = found(model=model, model_options={}, data={"name": "digits", "limit": 100})
    for name in ("tuned-search", "pbt"):
        for spec in asked(name, conditions):
            assert missing not in spec.config.regularizers
            build_model(spec.config, conditions.data(0))


def test_the_budget_of_a_training_is_none_of_a_comparison() -> None:
    with pytest.raises(ValueError, match="the training has a budget of 5m"):
        CompareConfig(training=TrainConfig.model_validate({"data": {"name": "digits"}, "budget": "5m"}))


@pytest.mark.ray
@pytest.mark.slow
@pytest.mark.thorough
def test_it_is_compared_with_searches_at_their_compute(ray_cluster: None, tmp_path: Path) -> None:
    conditions = found()
    jobs = [Job(METHODS[name], METHODS[name].budgets(["full"])[0], 0) for name in ("crossreg", "tuned-search", "pbt")]
    outcomes: dict[str, Outcome] = {one.method: one for one in run_jobs(jobs, conditions, tmp_path)}
    own, search = outcomes["crossreg"], outcomes["tuned-search"]
    amount = conditions.budget("matched", 0).amount
    assert own.cost.flops <= amount
    assert own.config is not None
    assert own.config.finds_length
    assert own.test_scaled == own.test  # it is scaled already
    for one in (search, outcomes["pbt"]):
        assert one.reg_scaled["nll"] <= one.reg["nll"] + 1e-6  # by which the run is compared, whose are scaled
        assert 0.8 * POPULATION * amount < one.cost.flops <= 1.02 * POPULATION * amount
        assert one.trials == POPULATION
        assert 0 < one.test["accuracy"] <= own.test["accuracy"]  # a few steps each, over ranges of a hundred
    assert own.test["accuracy"] > 0.3


def test_a_comparison_says_what_its_methods_share() -> None:
    with pytest.raises(ValueError, match="the training learns nothing"):
        CompareConfig(
            training=TrainConfig.model_validate(
                {"data": {"name": "digits"}, "optimizer": {"schedule": "cosine"}, "regularizers": None}
            )
        )
