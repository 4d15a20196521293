from __future__ import annotations

import math
import re
from typing import Any

import pytest

from crossreg import Cost
from crossreg.regularizers.registry import REGISTRY, get_hyperparameters, set_hyperparameters
from crossreg.services.data import load_data
from crossreg.services.training.assemble import build_model
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.describe import starting_values
from crossreg.services.training.evidence import evidence
from crossreg.services.training.explain import divergence, explain
from crossreg.services.training.resolve import resolve
from crossreg.services.training.result import TrainingResult

SCORES = {"accuracy": 0.9, "nll": 0.3, "brier": 0.1, "ece": 0.02}


def said(simple: Any = None, diagnoses: Any = (), training: Any = None, starts: Any = None, **result: Any) -> str:
    config = TrainConfig.model_validate({"data": {"name": "digits"}, "model": "mlp", **(training or {})})
    data = load_data(config.data)
    values = {"test": SCORES, "reg": SCORES, "cost": Cost(examples=10.0, flops=2e9, worker_seconds=3.0), **result}
    return "\n".join(
        explain(resolve(config, data), data, TrainingResult.model_validate(values), simple or {}, diagnoses, starts)
    )


def test_the_first_sentence_says_how_good_it_is_and_the_others_why() -> None:
    regularizers = {"dropout": 0.1, "weight_decay": 0.05, "temperature": 1.3}
    text = said(regularizers=regularizers, stopped="best at step 3")
    first = "4 networks that predict as one (mlp), trained on 1,294 examples, get 90.0% of 359 test examples right"
    assert text.startswith(first)
    assert "Length: best at step 3." in text
    assert "nothing beside the length was learned; fixed: dropout 0.1, weight_decay 0.05" in text
    assert "output temperature 1.30, fitted on held-out data (without it predictions would be overconfident)" in text
    assert "2e+09 FLOPs in 3 worker-seconds" in text
    assert "Note" not in text


def test_what_was_learned_is_said_with_its_value() -> None:
    training = {"optimizer": {"schedule": "cosine"}, "steps": 7}
    text = said(
        training=training,
        starts={"noise/00_norm1": 0.5},
        learned=["noise/00_norm1"],
        regularizers={"noise/00_norm1": 0.25},
    )
    assert text.startswith("One network (mlp)")
    assert "learned: noise/00_norm1 0.5 → 0.25." in text
    assert "Length: all 7 steps that it was given." in text
    assert "Regularization: nothing was learned" in said(training=training)


def test_of_many_layers_the_ends_of_the_range_are_said() -> None:
    ends = {f"noise/0{layer}_norm{layer}": 0.1 * layer for layer in range(1, 6)}
    training = {"optimizer": {"schedule": "cosine"}, "steps": 7}
    text = said(training=training, starts=dict.fromkeys(ends, 0.2), learned=list(ends), regularizers=ends)
    assert "learned: noise 0.2 → 0.1 to 0.5 (5 of them)" in text


def test_where_it_started_is_read_off_the_model_as_a_worker_builds_it() -> None:
    regularizers = {"noise": {"start": 0.3}, "l2": None}
    config = TrainConfig.model_validate({"data": {"name": "digits"}, "model": "mlp", "regularizers": regularizers})
    data = load_data(config.data)
    resolved = resolve(config, data)
    state = build_model(resolved, data)
    names = [name for name in get_hyperparameters(state) if name.startswith("noise/")]
    found = starting_values(resolved, data, [*names, "l2"])
    assert found.pop("l2") == pytest.approx(REGISTRY["l2"].hyperparameter.default)
    assert found == dict.fromkeys(names, pytest.approx(0.3))
    set_hyperparameters(state, None, {"l2": 0.01})
    assert starting_values(resolved, data, ["l2"], {"model": state.state_dict()}) == {"l2": pytest.approx(0.01)}


def test_numbers_are_said_in_the_unit_of_the_target() -> None:
    text = said(training={"data": {"name": "diabetes"}}, test={"rmse": 0.5, "nll": 1.0}, reg={})
    assert "reach RMSE 38.49 on 88 test examples (in units of the target, whose standard deviation is 77)" in text


@pytest.mark.parametrize(
    ("changes", "doubt"),
    [
        (
            {"simple": {"logistic regression": {"accuracy": 0.95, "nll": 0.2}}},
            "logistic regression, trained on the same",
        ),
        ({"diagnoses": ["sigma collapsed"]}, "Note: sigma collapsed"),
        ({"reg": {"nll": 0.1}}, "they are not alike"),  # of 144 held-out examples
        ({"training": {"data": {"name": "digits", "limit": 100}}}, "held-out examples are few"),
    ],
)
def test_what_looks_wrong_is_said_and_what_to_do(changes: dict[str, Any], doubt: str) -> None:
    assert doubt in said(**changes)


def test_a_training_that_diverged_says_so_and_from_when_on() -> None:
    nothing = {"accuracy": math.nan, "nll": math.nan}
    assert "diverged: what they predict for 359 test examples is not a number" in said(test=nothing)
    losses = ([1, 2, 3], [2.0, math.inf, math.nan])
    result = TrainingResult(test=nothing)
    assert divergence(result, losses) == "its loss is not a number from step 2 on"
    assert divergence(result, ((), ())) == "its loss is not a number"
    assert not divergence(TrainingResult(test=SCORES), losses)  # went on from weights that were kept before


def test_of_few_held_out_examples_a_difference_is_no_doubt() -> None:
    few = {"data": {"name": "digits", "limit": 120}}
    assert "not alike" not in said(training=few, reg={"nll": 0.19})


def test_a_simple_model_that_is_worse_is_no_doubt() -> None:
    assert "Note" not in said(simple={"logistic regression": {"accuracy": 0.95, "nll": 0.4}})


def test_it_says_what_a_search_would_probably_have_given_where_that_was_measured() -> None:
    known = evidence()
    text = said()
    assert (
        f"a random search of 16 trainings, at about {known.compute:.0f} times this compute, runs like this one" in text
    )
    assert f"one led by {known.leads['classification'].mean:+.2g} points of accuracy on average" in text
    assert "It would probably give about the same here" in text
    numbers = said(training={"data": {"name": "diabetes"}}, test={"rmse": 0.5}, reg={})
    assert "% of RMSE on average" in numbers
    worse = known.leads["regression"].untouched_mean < -1
    assert f"It would probably give {'more' if worse else 'about the same'} here" in numbers


@pytest.mark.parametrize(
    ("training", "why"),
    [
        ({"epochs": 3}, "is known of runs without flags alone"),
        ({"regularizers": {"noise": {}}}, "is known of runs without flags alone"),
        ({"data": {"name": "digits", "limit": 60}}, "was measured with .* training examples alone"),
    ],
)
def test_it_says_where_it_was_not_measured(training: dict[str, Any], why: str) -> None:
    assert re.search(why, said(training=training))
    assert "search" not in said(training={"optimizer": {"schedule": "cosine"}})
