"""Label smoothing and the temperature of the training loss: what they are, and that theta's response teaches them."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg import (
    L2,
    Batches,
    Classification,
    CrossRegularizer,
    Implicit,
    LabelSmoothing,
    LossTemperature,
    Trainer,
    UserError,
    get_hyperparameters,
    penalize,
    training_loss,
)
from crossreg.estimators import Direct
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.penalties import Term
from tests.crossreg.conftest import small_model
from tests.crossreg.estimators.minima import settle

TERMS: list[Callable[[], Term]] = [lambda: LabelSmoothing(0.1), lambda: LossTemperature(1.7)]


def data(rows: int, seed: int) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 5, generator=generator, dtype=torch.float64)
    noisy = x[:, :3] + 1.5 * torch.randn(rows, 3, generator=generator, dtype=torch.float64)
    return x, noisy.argmax(1)


def test_smoothing_is_that_of_pytorch() -> None:
    model = penalize(nn.Linear(5, 3).double(), LabelSmoothing(0.2))
    x, y = data(7, 0)
    found = training_loss(model, Classification(), model(x), y)
    torch.testing.assert_close(found, F.cross_entropy(model(x), y, label_smoothing=0.2))
    assert get_hyperparameters(model) == {"label_smoothing": pytest.approx(0.2)}


def test_smoothing_of_every_pixel() -> None:
    model = penalize(nn.Conv2d(1, 3, 1).double(), LabelSmoothing(0.2))
    x, y = torch.randn(2, 1, 4, 5, dtype=torch.float64), torch.randint(0, 3, (2, 4, 5))
    found = training_loss(model, Classification(), model(x), y)
    torch.testing.assert_close(found, F.cross_entropy(model(x), y, label_smoothing=0.2))


def test_the_temperature_divides_the_logits() -> None:
    model = penalize(nn.Linear(5, 3).double(), LossTemperature(2.0))
    x, y = data(7, 0)
    found = training_loss(model, Classification(), model(x), y)
    torch.testing.assert_close(found, 4 * F.cross_entropy(model(x) / 2, y))
    assert get_hyperparameters(model) == {"loss_temperature": pytest.approx(2.0)}


@pytest.mark.parametrize("term", TERMS)
def test_implicit_equals_finite_differences_at_minima_found_anew(term: Callable[[], Term]) -> None:
    torch.manual_seed(0)
    model = penalize(penalize(nn.Linear(5, 3).double(), L2(0.05), "*"), term())
    train, reg = data(40, 1), data(40, 2)

    def held_out(shift: float) -> tuple[float, nn.Module]:
        twin = copy.deepcopy(model)
        for name, parameter in rho_parameters(twin).items():
            parameter.data += shift * (name.endswith("1.rho"))
        settle(twin, Classification(), train, [Draw(0)])
        return F.cross_entropy(twin(reg[0]), reg[1]).item(), twin

    (above, _), (below, _), (_, settled) = held_out(1e-4), held_out(-1e-4), held_out(0.0)
    whole = Batches(*train, len(train[1]), shuffle=False)
    rho = rho_parameters(settled)
    estimator = Implicit(whole, solver="cg", terms=100, tolerance=1e-12)
    _, gradients = estimator.gradient(settled, Classification(), *reg, list(rho.values()), [Draw(0)])
    found = dict(zip(rho, gradients, strict=True))["rho_terms.1.rho"]
    assert float(found) == pytest.approx((above - below) / 2e-4, rel=1e-6)


@pytest.mark.parametrize("term", TERMS)
def test_a_trainer_learns_them_and_the_held_out_loss_is_plain(
    term: Callable[[], Term], batch: tuple[Tensor, Tensor]
) -> None:
    model = penalize(small_model("layer"), term())
    before = get_hyperparameters(model)
    plain, _ = Direct().gradient(model, Classification(), *batch, [], [Draw(0)])
    torch.testing.assert_close(plain, F.cross_entropy(model.eval()(batch[0]), batch[1]))
    (name,) = before
    with pytest.raises(UserError, match=f"does not depend on {name} "):
        CrossRegularizer(model, "classification", [batch])
    regularizer = CrossRegularizer(model, "classification", [batch], 1, 1, estimator=Implicit(Batches(*batch, 12)))
    optimizer = torch.optim.SGD(regularizer.theta, lr=0.1)
    assert isinstance(regularizer.estimator, Implicit)
    regularizer.estimator.optimizer = optimizer
    trainer = Trainer(model, "classification", optimizer, Batches(*batch, 12), regularizer=regularizer, steps=3)
    trainer.fit()
    assert get_hyperparameters(model).keys() == before.keys()
    assert all(get_hyperparameters(model)[name] != value for name, value in before.items())


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: LabelSmoothing(1.0), "smoothing is 1.0; it must lie between 0 and 1"),
        (lambda: LossTemperature(0.0), "temperature is 0.0"),
        (lambda: penalize(nn.Linear(2, 2), LabelSmoothing(), "*"), "measures no weights"),
        (
            lambda: LabelSmoothing().added(nn.ReLU(), torch.zeros(3, 1), torch.zeros(3, 1)),
            r"is for classification.*\(3, 1\) and \(3, 1\) float32",
        ),
    ],
)
def test_mistakes_are_named(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()
