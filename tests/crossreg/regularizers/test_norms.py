from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
from torch import Tensor, nn

from crossreg import Batches, CrossRegularizer, Trainer, UserError, learn_norms
from crossreg.estimators import Direct
from crossreg.losses import as_loss
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.norms import norms
from tests.crossreg.conftest import small_model


def test_weights_keep_their_values_and_norms_are_told_by_weight(batch: tuple[Tensor, Tensor]) -> None:
    plain = small_model("layer")
    model = learn_norms(copy.deepcopy(plain))
    torch.testing.assert_close(model(batch[0]), plain(batch[0]))
    assert set(norms(model)) == {"0.weight", "3.weight", "6.weight"}
    torch.testing.assert_close(norms(model)["3.weight"], plain[3].weight.detach().norm())
    alone = learn_norms(nn.Linear(3, 2))
    assert set(norms(alone)) == {"weight"}
    assert set(norms(learn_norms(small_model(), "3.w*"))) == {"3.weight"}


def test_the_direct_gradient_equals_finite_differences(batch: tuple[Tensor, Tensor]) -> None:
    x, y = batch[0].double(), batch[1]
    model = learn_norms(small_model("layer", torch.float64))
    loss, rho = as_loss("classification"), rho_parameters(model)
    _, found = Direct().gradient(model, loss, x, y, list(rho.values()), [Draw(0)])
    for parameter, gradient in zip(rho.values(), found, strict=True):
        sides = []
        for side in (1e-5, -1e-5):
            parameter.data += side
            with torch.no_grad():
                sides.append(float(nn.functional.cross_entropy(model(x), y)))
            parameter.data -= side
        assert float(gradient) == pytest.approx((sides[0] - sides[1]) / 2e-5, rel=1e-6, abs=1e-9)


def test_direction_trains_and_norm_is_learned(batch: tuple[Tensor, Tensor]) -> None:
    model = learn_norms(small_model("batch"))
    regularizer = CrossRegularizer(model, "classification", [batch], 1, samples=1)
    before, directions = norms(model), [p.detach().clone() for p in regularizer.theta]
    optimizer = torch.optim.SGD(regularizer.theta, lr=0.1)
    trainer = Trainer(model, "classification", optimizer, Batches(*batch, 12), regularizer=regularizer, steps=6)
    trainer.fit()
    assert all(float(norms(model)[name]) != float(value) for name, value in before.items())
    assert all(not torch.equal(p, old) for p, old in zip(regularizer.theta, directions, strict=True))
    for name, value in norms(model).items():
        torch.testing.assert_close(model.get_submodule(name[:-7]).weight.detach().norm(), value)
    twin = learn_norms(small_model("batch"))
    twin.load_state_dict(model.state_dict())
    torch.testing.assert_close(twin.eval()(batch[0]), model.eval()(batch[0]))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: learn_norms(nn.ReLU()), "there are none"),
        (lambda: learn_norms(nn.Linear(2, 2), "no*"), "selects none of the weights: weight, bias"),
        (lambda: learn_norms(nn.utils.parametrizations.orthogonal(nn.Linear(2, 2))), "no weight is left to take"),
        (lambda: learn_norms(nn.Linear(2, 2), lambda name, p: p.data.zero_() is not None), "a weight that is zero"),
    ],
)
def test_mistakes_are_named(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()
