"""An outcome, and what is in it, is JSON that every program reads, and is read back as it was."""

from __future__ import annotations

import json
import math
from typing import NoReturn

import pytest

from crossreg import Cost
from crossreg.core.plain import finite, with_nan
from crossreg.prediction.calibration import Reliability
from crossreg.services.comparison.outcome import Outcome, Point
from crossreg.services.search.spec import Record
from crossreg.services.training.result import TrainingResult

NAN = math.nan


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


def diverged() -> Outcome:
    """Return the outcome of a method whose loss became NaN on the way."""
    columns = {"confidence": [NAN, 0.7], "accuracy": [NAN, 1.0], "count": [0, 3], "edges": [0.0, 0.5, 1.0]}
    return Outcome(
        method="none",
        budget="matched",
        seed=1,
        test={"nll": NAN, "accuracy": 0.1},
        reg={"nll": math.inf},
        regularizers={"l2": NAN},
        cost=Cost(flops=NAN, examples=3.0),
        reliability={**columns, "ece": NAN},
        networks=[{"accuracy": 0.1, "nll": NAN}],
        curve=[Point(cost=Cost(1.0), step=3, reg={"nll": NAN}, test={})],
        schedule=[(0, {"l2": NAN, "noise": 0.1})],
        members=[[(0, {"l2": 0.1})], [(5, {"l2": NAN})]],
    )


def test_an_outcome_without_a_number_everywhere_is_json_and_comes_back() -> None:
    outcome = diverged()
    text = outcome.model_dump_json()
    plain = json.loads(text, parse_constant=no_constant)
    assert plain["temperature"] is None
    assert plain["reliability"]["confidence"] == [None, 0.7]
    read = Outcome.model_validate_json(text)
    assert finite(read.model_dump()) == finite(outcome.model_dump())
    assert math.isnan(read.temperature)
    assert math.isnan(read.schedule[0][1]["l2"])
    assert math.isnan(read.curve[0].reg["nll"])
    assert math.isnan(read.cost.flops)
    assert (read.run_id, read.config, read.examples) == (None, None, None)
    assert math.isnan(Reliability.from_dict(read.reliability).ece)


def test_so_are_a_training_and_an_interval_of_a_trial() -> None:
    result = TrainingResult(test={"nll": NAN})
    text = result.model_dump_json()
    json.loads(text, parse_constant=no_constant)
    assert math.isnan(TrainingResult.model_validate_json(text).test["nll"])
    record = Record(
        state="b", parent=None, spec="c", until=3, given={}, hyperparameters={"l2": NAN}, scores={"reg": {"nll": NAN}},
        metrics=[(3, 1, {"train/loss": NAN})], cost=Cost(), peak_memory_bytes=1, began=0.0, ended=1.0,
    )  # fmt: skip
    text = record.model_dump_json()
    json.loads(text, parse_constant=no_constant)
    read = Record.model_validate_json(text)
    assert read.parent is None
    assert math.isnan(read.metrics[0][2]["train/loss"])
    assert read.score("reg", "nll") == math.inf


@pytest.mark.parametrize("value", [1, "NaN", True, {"a": [1.5, {"b": 0.0}]}])
def test_what_is_finite_stays_what_it_is(value: object) -> None:
    assert finite(value) == value
    assert with_nan(value) == value
