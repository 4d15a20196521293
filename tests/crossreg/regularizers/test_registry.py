"""Regularizers by name: put on, learned, taken off."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from crossreg import Batches, CrossRegularizer, Trainer, Unrolled, UserError
from crossreg.regularizers.registry import STARTS, regularize, strip


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Conv2d(1, 4, 3, padding=1), nn.Tanh(), nn.Flatten(), nn.Linear(4 * 36, 3))


def test_all_of_them_are_learned_together_and_taken_off_again() -> None:
    generator = torch.Generator().manual_seed(0)
    x, y = torch.randn(24, 1, 6, 6, generator=generator), torch.randint(0, 3, (24,), generator=generator)
    model = regularize(network(), STARTS)
    names = {("noise" if name == "input_noise" else name) for name in STARTS}
    before = get_hyperparameters(model)
    assert set(before) == names
    assert all(value == pytest.approx(STARTS.get(name, STARTS["input_noise"])) for name, value in before.items())
    regularizer = CrossRegularizer(model, "classification", [(x, y)], 1, 2, estimator=Unrolled(Batches(x, y, 12)))
    optimizer = torch.optim.SGD(regularizer.theta, lr=0.1)
    assert isinstance(regularizer.estimator, Unrolled)
    regularizer.estimator.optimizer = optimizer
    said: dict[str, float] = {}
    trainer = Trainer(model, "classification", optimizer, Batches(x, y, 12), regularizer=regularizer, steps=2)
    said = trainer.fit()
    for name in names:
        assert get_hyperparameters(model)[name] != before[name], name
        assert said[f"rho/{name}"] == pytest.approx(get_hyperparameters(model)[name])
    model.eval()
    expected = model(x)
    strip(model)
    assert get_hyperparameters(model) == {}
    assert set(model.state_dict()) == set(network().state_dict())
    torch.testing.assert_close(model(x), expected)
    torch.testing.assert_close(model.train()(x), expected)


def test_a_wrong_name_is_named() -> None:
    with pytest.raises(UserError, match="cannot learn 'shft'; did you mean 'shift'"):
        regularize(network(), {"shft": 1.0})
