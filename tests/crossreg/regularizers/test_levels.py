"""Gradient decomposition: theta moves across grad R, rho along it."""

from __future__ import annotations

import copy
from collections.abc import Callable

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils import parametrize

from crossreg import L1, L2, CrossRegularizer, Penalty, UserError, learn_levels, learn_norms, penalize
from crossreg.estimators import Direct
from crossreg.losses import as_loss
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.levels import Level, levels
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.norms import Granularity, norms
from tests.crossreg.conftest import small_model


class Roughness(Penalty):
    def measure(self, weights: list[Tensor]) -> list[Tensor]:
        return [w.diff(dim=-1).square().sum() for w in weights]


MEASURES: list[Callable[[], Penalty]] = [L1, L2, Roughness]


def parts(model: nn.Module) -> list[tuple[Level, Tensor]]:
    """Every level with its weight."""
    found = [p for m in model.modules() if parametrize.is_parametrized(m) for p in m.parametrizations.values()]
    return [(p[0], p.original) for p in found]


def normals(weight: Tensor, measure: Penalty, granularity: Granularity) -> Tensor:
    at = weight.detach().clone().requires_grad_()
    (gradient,) = torch.autograd.grad(measure.measure([at])[0], at)
    dims = (0, 1) if granularity == "tensor" else (1,)
    return gradient / gradient.square().sum(dims, keepdim=True).sqrt()


@pytest.mark.parametrize("granularity", ["tensor", "unit"])
@pytest.mark.parametrize("measure", MEASURES)
def test_the_two_gradients_make_up_the_whole(
    measure: Callable[[], Penalty], granularity: Granularity, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch[0].double(), batch[1]
    plain = small_model("layer", torch.float64)
    model = learn_levels(copy.deepcopy(plain), measure(), "3.weight", granularity)
    torch.testing.assert_close(model(x), plain(x))
    F.cross_entropy(plain(x), y).backward()
    F.cross_entropy(model(x), y).backward()
    whole, across = plain[3].weight.grad, dict(model.named_parameters())["3.parametrizations.weight.original"].grad
    n, dims = normals(plain[3].weight, measure(), granularity), (0, 1) if granularity == "tensor" else (1,)
    torch.testing.assert_close(across, whole - (whole * n).sum(dims, keepdim=True) * n)
    rho = rho_parameters(model)
    _, (along,) = Direct().gradient(model, as_loss("classification"), x, y, list(rho.values()), [Draw(0)])
    size = plain[3].weight.detach().square().sum(dims).sqrt()
    torch.testing.assert_close(along, (whole * n).sum(dims) * size)


@pytest.mark.parametrize("measure", MEASURES)
def test_a_step_of_theta_keeps_the_level_and_a_step_of_rho_changes_it(
    measure: Callable[[], Penalty], batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch[0].double(), batch[1]
    model = learn_levels(small_model("layer", torch.float64), measure())
    regularizer = CrossRegularizer(model, "classification", [(x, y)], 1, 1, lr=0.05)
    before = levels(model)
    assert set(before) == {"0.weight", "3.weight", "6.weight"}
    optimizer = torch.optim.SGD(regularizer.theta, lr=1e-6)
    F.cross_entropy(model(x), y).backward()
    optimizer.step()
    optimizer.zero_grad()
    for name, value in levels(model).items():
        assert float(value) == pytest.approx(float(before[name]), rel=1e-9)
    regularizer.update()
    for name, value in levels(model).items():
        assert abs(float(value) / float(before[name]) - 1) > 0.01
        weight = model.get_submodule(name[:-7]).weight
        assert measure().measure([weight])[0].item() == pytest.approx(float(value))
    assert all(float(m.rho) == 0 for m in model.modules() if isinstance(m, Level))


def test_l1_shrinks_by_one_amount_and_stops_at_zero() -> None:
    model = nn.Linear(4, 1, bias=False).double()
    model.weight.data = torch.tensor([[1.0, -0.5, 0.01, 0.0]], dtype=torch.float64)
    learn_levels(model, L1())
    level = next(m for m in model.modules() if isinstance(m, Level))
    original = model.parametrizations.weight.original
    size = float(original.detach().norm())
    level.rho.data.fill_(-0.1)
    level.fold(original)
    step = 0.1 * size / 3**0.5
    expected = torch.tensor([[1 - step, -0.5 + step, 0.0, 0.0]], dtype=torch.float64)
    torch.testing.assert_close(original.detach(), expected)


@pytest.mark.parametrize("granularity", ["tensor", "unit"])
@pytest.mark.parametrize("measure", MEASURES)
def test_any_optimizer_keeps_the_level(
    measure: Callable[[], Penalty], granularity: Granularity, batch: tuple[Tensor, Tensor]
) -> None:
    x, y = batch[0].double(), batch[1]
    model = learn_levels(small_model("layer", torch.float64), measure(), None, granularity)
    regularizer = CrossRegularizer(model, "classification", [(x, y)], 1000, 1)
    before = [level.values(weight).clone() for level, weight in parts(model)]
    optimizer = torch.optim.Adam(regularizer.theta, lr=0.05)
    start = model[0].weight.detach().clone()
    for _ in range(20):
        F.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        regularizer.step()
    assert float((model[0].weight.detach() - start).norm()) > 0.1
    for (level, weight), value in zip(parts(model), before, strict=True):
        torch.testing.assert_close(level.values(weight), value, rtol=1e-9, atol=0)


def test_weights_that_are_set_or_loaded_before_the_first_step_keep_their_level() -> None:
    x = torch.randn(9, 4, dtype=torch.float64)
    model, other = (learn_levels(nn.Linear(4, 1).double(), L2()) for _ in range(2))
    regularizer = CrossRegularizer(model, "regression", [(x, x[:, :1])], 1000, 1)
    ((_, weight),) = parts(model)
    weight.data *= 3
    before = levels(model)["weight"]
    regularizer.step()
    torch.testing.assert_close(levels(model)["weight"], before)
    model(x)  # no step follows
    model.load_state_dict(other.state_dict())
    regularizer.step()
    torch.testing.assert_close(levels(model)["weight"], levels(other)["weight"])


def test_a_second_pass_at_other_weights_is_not_where_the_step_starts() -> None:
    """As in SAM, whose gradient is of a worse point nearby."""
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(9, 4, generator=generator, dtype=torch.float64)
    model = learn_levels(nn.Linear(4, 1).double(), L2())
    regularizer = CrossRegularizer(model, "regression", [(x, x[:, :1])], 1000, 1)
    ((_, weight),) = parts(model)
    before = levels(model)["weight"]
    model(x).sum().backward()
    with torch.no_grad():
        weight *= 1.5
    model(x).sum().backward()
    with torch.no_grad():
        weight /= 1.5
    torch.optim.SGD(regularizer.theta, lr=0.1).step()
    regularizer.step()
    torch.testing.assert_close(levels(model)["weight"], before, rtol=1e-9, atol=0)


def test_l1_descends_to_the_lasso_of_its_norm() -> None:
    """Across the norm, theta ends where the LASSO of that norm does, and its zeros are zeros."""
    from sklearn.linear_model import Lasso

    generator = torch.Generator().manual_seed(0)
    x = torch.randn(40, 8, generator=generator, dtype=torch.float64)
    y = (x[:, :1] - 0.5 * x[:, 1:2]) + 0.3 * torch.randn(40, 1, generator=generator, dtype=torch.float64)
    expected = Lasso(alpha=0.1, fit_intercept=False, tol=1e-12).fit(x.numpy(), y.numpy()).coef_
    expected = torch.from_numpy(expected)[None]
    model = nn.Linear(8, 1, bias=False).double()
    model.weight.data *= expected.abs().sum() / model.weight.detach().abs().sum()  # another point of that norm
    learn_levels(model, L1())
    regularizer = CrossRegularizer(model, "regression", [(x, y)], 10_000, 1, learn=["l1_level"])
    optimizer = torch.optim.SGD(regularizer.theta, lr=0.3)
    for _ in range(400):
        (0.5 * (model(x) - y).square().mean()).backward()
        optimizer.step()
        optimizer.zero_grad()
        regularizer.step()
    assert 0 < int((expected == 0).sum()) < 7
    assert torch.equal(model.weight == 0, expected == 0)
    torch.testing.assert_close(model.weight.detach(), expected, rtol=1e-4, atol=1e-6)


def test_l2_is_the_norm() -> None:
    """One update changes the norm as that of `learn_norms` does, to first order."""
    x, y = torch.randn(9, 4, dtype=torch.float64), torch.randn(9, 1, dtype=torch.float64)
    torch.manual_seed(0)
    plain = nn.Linear(4, 1).double()
    changed = []
    for learn in (lambda m: learn_levels(m, L2()), learn_norms):
        model = learn(copy.deepcopy(plain))
        CrossRegularizer(model, "regression", [(x, y)], 1, 1, lr=1e-4).step()
        changed.append(float(model.weight.detach().norm() / plain.weight.detach().norm() - 1))
    assert changed[0] == pytest.approx(changed[1], rel=1e-3)
    assert abs(changed[0]) == pytest.approx(1e-4, rel=1e-3)


def test_it_is_saved_copied_and_loaded(batch: tuple[Tensor, Tensor]) -> None:
    model = learn_levels(small_model("batch"), L1())
    CrossRegularizer(model, "classification", [batch], 1, 1).step()
    twin = learn_levels(small_model("batch"), L1())
    twin.load_state_dict(model.state_dict())
    copied = copy.deepcopy(model)
    for other in (twin, copied):
        torch.testing.assert_close(other.eval()(batch[0]), model.eval()(batch[0]))
        assert levels(other) == levels(model)


def test_norms_of_rows() -> None:
    model = learn_norms(nn.Linear(4, 3), granularity="unit")
    assert tuple(norms(model)["weight"].shape) == (3,)
    torch.testing.assert_close(norms(model)["weight"], model.weight.detach().norm(dim=1))


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        (lambda: learn_levels(nn.ReLU(), L1()), "there are none"),
        (lambda: learn_levels(nn.Linear(2, 2), L1(), granularity="row"), "allowed are 'tensor' and 'unit'"),  # type: ignore[arg-type]
        (lambda: learn_levels(nn.Linear(2, 2), _taken()), "a model's penalty already"),
    ],
)
def test_mistakes_are_named(wrong: Callable[[], object], words: str) -> None:
    with pytest.raises(UserError, match=words):
        wrong()


def _taken() -> Penalty:
    term = L1()
    penalize(nn.Linear(2, 2), term)
    return term
