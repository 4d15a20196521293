"""Estimators that follow theta, against finite differences of the bilevel objective in float64."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.func import functional_call

from crossreg import (
    L1,
    L2,
    Batches,
    Classification,
    CrossRegularizer,
    GaussianRegression,
    Implicit,
    Trainer,
    Unrolled,
    UserError,
    inject_noise,
    penalize,
    training_loss,
)
from crossreg.estimators import Direct, HypergradientEstimator
from crossreg.estimators.hypergradient import step_sizes
from crossreg.estimators.implicit import conjugate_gradients, neumann
from crossreg.regularizers.base import rho_parameters
from crossreg.regularizers.noise import Draw
from crossreg.regularizers.penalties import Objective, strengths
from crossreg.training.compute import measure_flops
from tests.crossreg.conftest import small_model
from tests.crossreg.estimators.minima import objective, settle

DRAWS = [Draw(3, 1.0), Draw(3, -1.0), Draw(8, 1.0)]

Data = tuple[Tensor, Tensor]


def regression(rows: int, seed: int) -> Data:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, 6, generator=generator, dtype=torch.float64)
    return x, x[:, :2].sum(1, keepdim=True) + torch.randn(rows, 1, generator=generator, dtype=torch.float64)


def whole(data: Data) -> Batches:
    return Batches(*data, len(data[1]), shuffle=False)


def linear(each: bool = False) -> nn.Module:
    torch.manual_seed(0)
    return penalize(nn.Linear(6, 1).double(), L2(0.05, each), "*")


def noisy() -> nn.Module:
    torch.manual_seed(4)  # smooth, so that its minimum can be found to many digits
    model = nn.Sequential(nn.Linear(8, 6), nn.LayerNorm(6), nn.Tanh(), nn.Linear(6, 3)).double()
    return penalize(inject_noise(model, initial_sigma=0.4), L2(0.2), "*")


def held_out(model: nn.Module, loss: Any, data: Data) -> float:
    value, _ = Direct().gradient(model, loss, *data, [], DRAWS)
    return float(value)


def differences(model: nn.Module, value: Callable[[nn.Module], float], h: float = 1e-4) -> list[Tensor]:
    """Return central differences of a function of rho."""
    found = []
    for name, parameter in rho_parameters(model).items():
        slope = torch.zeros_like(parameter)
        for index in range(parameter.numel()):
            sides = []
            for side in (h, -h):
                twin = copy.deepcopy(model)
                dict(twin.named_parameters())[name].data.view(-1)[index] += side
                sides.append(value(twin))
            slope.view(-1)[index] = (sides[0] - sides[1]) / (2 * h)
        found.append(slope)
    return found


def check(found: list[Tensor], expected: list[Tensor], tolerance: float = 1e-5) -> None:
    assert all(float(gradient.abs().max()) > 1e-6 for gradient in expected)
    for ours, truth in zip(found, expected, strict=True):
        torch.testing.assert_close(ours, truth, rtol=tolerance, atol=1e-8)


@pytest.mark.parametrize("each", [False, True])
def test_implicit_is_the_derivative_through_the_minimum_of_ridge_regression(each: bool) -> None:
    train, reg, loss = regression(40, 1), regression(20, 2), GaussianRegression()
    model = linear(each)
    settle(model, loss, train, DRAWS[:1])

    def solved(twin: nn.Module) -> float:
        settle(twin, loss, train, DRAWS[:1])
        return held_out(twin, loss, reg)

    estimator = Implicit(whole(train), solver="cg", terms=200, tolerance=1e-12)
    rho = list(rho_parameters(model).values())
    value, found = estimator.gradient(model, loss, *reg, rho, DRAWS, 1.0)
    assert float(value) == pytest.approx(held_out(model, loss, reg))
    check(found, differences(model, solved))


def test_implicit_is_the_derivative_through_the_minimum_with_noise_and_temperature(batch: Data) -> None:
    x, y = batch[0].double(), batch[1]
    train, reg, loss = (x[:12], y[:12]), (x[12:], y[12:]), Classification()
    model = noisy()
    settle(model, loss, train, DRAWS[:2])

    def solved(twin: nn.Module) -> float:
        settle(twin, loss, train, DRAWS[:2])
        return held_out(twin, loss, reg)

    estimator = Implicit(whole(train), solver="cg", terms=500, tolerance=1e-13)
    _, found = estimator.gradient(model, loss, *reg, list(rho_parameters(model).values()), DRAWS, 3.0)
    check([gradient / 3 for gradient in found], differences(model, solved, 1e-3), 1e-3)


@pytest.mark.parametrize("steps", [1, 3])
@pytest.mark.parametrize("momentum", [0.0, 0.5])
def test_unrolled_is_the_derivative_through_steps_of_theta(steps: int, momentum: float, batch: Data) -> None:
    x, y = batch[0].double(), batch[1]
    reg, loss = (x[12:], y[12:]), Classification()
    train = Batches(x[:12], y[:12], 4, shuffle=False)
    model = noisy()
    theta = CrossRegularizer(model, loss, [reg], estimator=Implicit(train)).theta
    optimizer = torch.optim.SGD(theta, lr=0.3, momentum=momentum)
    estimator = Unrolled(train, optimizer, steps)
    estimator.set_update(2)
    batches = [estimator.batch(steps + step) for step in range(steps)]
    lr = 0.3 / (1 - momentum)

    def moved(twin: nn.Module) -> float:
        rho = rho_parameters(twin)
        for step, data in enumerate(batches):
            weights = [p for name, p in twin.named_parameters() if name not in rho]
            slopes = torch.autograd.grad(objective(twin, loss, data, [DRAWS[step % 3]]), weights)
            for weight, slope in zip(weights, slopes, strict=True):
                weight.data -= lr * slope
        return held_out(twin, loss, reg)

    before = {name: value.clone() for name, value in model.state_dict().items()}
    value, found = estimator.gradient(model, loss, *reg, list(rho_parameters(model).values()), DRAWS, 1.0)
    assert float(value) == pytest.approx(moved(copy.deepcopy(model)))
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    check(found, differences(model, moved))


def test_neumann_series_goes_to_the_solution_and_conjugate_gradients_find_it() -> None:
    torch.manual_seed(0)
    root = torch.randn(8, 8, dtype=torch.float64)
    matrix = root @ root.T / 8 + 0.5 * torch.eye(8, dtype=torch.float64)
    right = [torch.randn(3, dtype=torch.float64), torch.randn(5, dtype=torch.float64)]

    def product(vector: list[Tensor]) -> list[Tensor]:
        return list((matrix @ torch.cat(vector)).split([3, 5]))

    exact = torch.linalg.solve(matrix, torch.cat(right))
    sizes = [torch.full((3,), 0.1, dtype=torch.float64), torch.tensor(0.2, dtype=torch.float64)]
    torch.testing.assert_close(torch.cat(neumann(product, right, sizes, 1500)), exact)
    torch.testing.assert_close(torch.cat(conjugate_gradients(product, right, 8)), exact)
    one = torch.cat(neumann(product, right, sizes, 1))
    scale = torch.cat([sizes[0], sizes[1].expand(5)])
    first = scale * torch.cat(right)
    torch.testing.assert_close(one, 2 * first - scale * (matrix @ first))


def test_conjugate_gradients_stop_where_curvature_is_not_positive() -> None:
    right = [torch.tensor([1.0, 2.0])]
    found = conjugate_gradients(lambda vector: [-vector[0]], right, 5)
    assert torch.equal(found[0], right[0])
    curved = torch.tensor([3.0, -1.0])
    found = conjugate_gradients(lambda vector: [curved * vector[0]], [torch.tensor([1.0, 0.1])], 5)
    assert found[0].isfinite().all()
    assert float(found[0][0]) > 0


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda p: torch.optim.SGD(p, lr=0.2), 0.2),
        (lambda p: torch.optim.SGD(p, lr=0.2, momentum=0.75), 0.8),
        (lambda p: torch.optim.Adam(p, lr=0.2), 0.1),
        (lambda p: torch.optim.AdamW(p, lr=0.2, weight_decay=0.3), 0.1),
    ],
)
def test_step_sizes_are_how_far_an_optimizer_goes_for_a_unit_of_gradient(make: Any, expected: float) -> None:
    weight = nn.Parameter(torch.zeros(3, dtype=torch.float64))
    optimizer = make([weight])
    for _ in range(2000):
        weight.grad = torch.full_like(weight, 2.0)
        optimizer.step()
    (size,) = step_sizes(optimizer, [weight])
    torch.testing.assert_close(size.expand(3), torch.full((3,), expected, dtype=torch.float64))
    before = weight.detach().clone()
    for group in optimizer.param_groups:
        group["weight_decay"] = 0.0
    weight.grad = torch.full_like(weight, 2.0)
    optimizer.step()
    torch.testing.assert_close(before - weight.detach(), 2 * size.expand(3), rtol=1e-6, atol=0)


def test_the_direct_gradient_refuses_what_it_cannot_learn() -> None:
    model = linear()
    with pytest.raises(UserError, match=r"does not depend on l2 .*estimator=Implicit\(train\)"):
        CrossRegularizer(model, "regression", [regression(8, 0)])


@pytest.mark.parametrize("kind", [Implicit, Unrolled])
def test_an_optimizer_is_asked_for(kind: type[HypergradientEstimator], batch: Data) -> None:
    model = inject_noise(small_model())
    estimator = kind(Batches(*batch, 12))
    regularizer = CrossRegularizer(model, "classification", [batch], 1, estimator=estimator)
    with pytest.raises(UserError, match="set `estimator.optimizer`"):
        regularizer.step()
    estimator.optimizer = torch.optim.AdamW(regularizer.theta)
    update = regularizer.step()
    assert update is not None
    assert update.applied
    estimator.optimizer = torch.optim.AdamW(regularizer.theta[:1])
    with pytest.raises(UserError, match="does not hold all of theta"):
        regularizer.step()


@pytest.mark.parametrize("kind", [Implicit, Unrolled])
def test_learns_a_weight_decay_beside_noise_in_the_training_loop(
    kind: type[HypergradientEstimator], batch: Data
) -> None:
    model = penalize(inject_noise(small_model("batch")), L2(1e-3, each=True))
    estimator = kind(Batches(*batch, 12, seed=3))
    regularizer = CrossRegularizer(model, "classification", [batch], 2, estimator=estimator)
    estimator.optimizer = torch.optim.AdamW(regularizer.theta, lr=0.01)
    before = {name: value.detach().clone() for name, value in regularizer.rho.items()}
    statistics = model[1].running_mean.clone()
    trainer = Trainer(
        model, "classification", estimator.optimizer, Batches(*batch, 12), regularizer=regularizer, steps=20
    )
    trainer.fit()
    assert all(not torch.equal(value, regularizer.rho[name]) for name, value in before.items())
    assert not torch.equal(statistics, model[1].running_mean)
    assert trainer.ledger is not None
    assert trainer.ledger.cost.flops > 0


@pytest.mark.parametrize("kind", [Implicit, Unrolled])
def test_operations_are_counted_without_an_optimizer(kind: type[HypergradientEstimator], batch: Data) -> None:
    model = inject_noise(small_model("layer"))
    flops = measure_flops(model, Classification(), *batch, 3, kind(Batches(*batch, 12)))
    plain = measure_flops(model, Classification(), *batch, 3)
    assert flops["theta"] == plain["theta"]
    forward, _ = kind(Batches(*batch, 12)).passes(3)
    assert flops["rho"] * forward > plain["rho"] * 5


class TestPenalties:
    def test_what_they_add(self) -> None:
        model = nn.Sequential(nn.Linear(6, 4, bias=False), nn.Linear(4, 1, bias=False)).double()
        model = penalize(penalize(model, L2(0.05)), L1(0.3, each=True), "1.*")
        model = penalize(model, L2(2.0), lambda name, p: name == "0.weight")
        first, second = model[0].weight, model[1].weight
        expected = (
            0.025 * (first.square().sum() + second.square().sum()) + 0.3 * second.abs().sum() + first.square().sum()
        )
        assert [tuple(value.shape) for value in strengths(model)] == [(), (1,), ()]
        value = Objective(model, GaussianRegression())(*regression(9, 0))
        torch.testing.assert_close(
            value, GaussianRegression()(model(regression(9, 0)[0]), regression(9, 0)[1]) + expected
        )

    def test_a_model_without_any_adds_nothing(self) -> None:
        data = regression(5, 0)
        model = nn.Linear(6, 1).double()
        loss = GaussianRegression()
        assert training_loss(model, loss, model(data[0]), data[1]) == loss(model(data[0]), data[1])

    def test_biases_and_normalization_are_left_out(self) -> None:
        model = penalize(small_model("batch"), L2())
        assert all(dict(model.named_parameters())[name].ndim >= 2 for name in model.rho_terms[0].names)

    def test_weights_can_be_swapped(self) -> None:
        model = linear()
        doubled = {f"model.{name}": 2 * p for name, p in model.named_parameters() if "rho" not in name}
        data = regression(5, 3)
        zero = {name: 0 * value for name, value in doubled.items()}
        swapped = functional_call(Objective(model, GaussianRegression()), doubled, data)
        plain = functional_call(Objective(model, GaussianRegression()), zero, data)
        assert float(swapped) != float(plain)
        torch.testing.assert_close(plain, 0.5 * data[1].square().mean())

    @pytest.mark.parametrize(
        ("wrong", "words"),
        [
            (lambda: L2(0.0), "strength is 0.0"),
            (lambda: penalize(nn.Linear(2, 2), L2(), "nothing*"), "selects none of the weights: weight, bias"),
            (lambda: penalize(linear(), linear().rho_terms[0]), "a model's already"),
            (lambda: Implicit(whole(regression(3, 0)), solver="lu"), "allowed are 'neumann' and 'cg'"),
            (lambda: Implicit(whole(regression(3, 0)), terms=0), "terms is 0"),
            (lambda: Implicit(whole(regression(3, 0)), damping=-1.0), "damping is -1.0"),
            (lambda: Unrolled(whole(regression(3, 0)), steps=0), "steps is 0"),
        ],
    )
    def test_mistakes_are_named(self, wrong: Callable[[], object], words: str) -> None:
        with pytest.raises(UserError, match=words):
            wrong()
