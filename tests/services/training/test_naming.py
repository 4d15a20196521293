"""What runs are called: by data, model, and what else was said."""

from typing import Any

import pytest

from crossreg.services.data import Dataset, load_data
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.naming import group
from crossreg.services.training.resolve import resolve


@pytest.fixture(scope="module")
def data() -> Dataset:
    return load_data(TrainConfig.model_validate({"data": {"name": "digits"}}).data)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, "digits-cnn"),
        ({"model": "mlp", "ensemble": 2}, "digits-mlp"),
        ({"model": "mlp", "regularizers": {"noise": {}, "l2": {}}}, "digits-mlp-noise+l2"),
        ({"regularizers": {"dropout": {"learn": False, "value": 0.1}}}, "digits-cnn"),
        ({"regularizers": {"dropout": {"learn": False, "value": 0.25}}}, "digits-cnn-dropout=0.25"),
        ({"regularizers": {"noise": {"learn": False}}}, "digits-cnn-noise=0.1"),
        ({"optimizer": {"schedule": "cosine"}, "regularizers": {"temperature": {}}}, "digits-cnn-cosine"),
        ({"optimizer": {"schedule": "cosine", "name": "sgd"}, "regularizers": {"l1": {}}}, "digits-cnn-cosine-sgd-l1"),
    ],
)
def test_runs_are_called_by_what_is_not_usual(data: Dataset, said: dict[str, Any], expected: str) -> None:
    config = TrainConfig.model_validate({"data": {"name": "digits"}, **said})
    assert group(resolve(config, data), data) == expected
