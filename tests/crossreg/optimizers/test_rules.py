"""Update rules: their numbers by hand, and what they must not depend on."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor, nn

from crossreg.optimizers import RULES, Layout, UpdateRule, update_rule
from crossreg.optimizers.lstm import cell, log_and_sign
from crossreg.optimizers.mlp import MLPRule

LAYOUT = Layout(((2, 3), (2,), (), (2, 1, 2, 2)))


def weights(rule: UpdateRule, seed: int = 0) -> dict[str, Tensor]:
    """Random ones: a rule fresh from the shop is nearly Adam, and would pass for the wrong reasons."""
    generator = torch.Generator().manual_seed(seed)
    return {
        name: torch.randn(one.shape, generator=generator, dtype=torch.float64).mul(0.5)
        for name, one in rule.initial(generator).items()
    }


def run(rule: UpdateRule, gradients: Tensor, theta: Tensor, layout: Layout = LAYOUT) -> Tensor:
    """Return the direction after gradients `[steps, P]`."""
    memory, direction, given = rule.zeros(theta), theta, weights(rule)
    for step, gradient in enumerate(gradients, start=1):
        direction, memory = rule.update(given, memory, gradient, theta, torch.tensor(float(step)), layout)
    return direction


@pytest.fixture
def gradients() -> Tensor:
    return torch.randn(4, LAYOUT.num_coordinates, generator=torch.Generator().manual_seed(1), dtype=torch.float64)


@pytest.fixture
def theta() -> Tensor:
    return torch.randn(LAYOUT.num_coordinates, generator=torch.Generator().manual_seed(2), dtype=torch.float64)


def test_features_of_the_mlp_by_hand() -> None:
    """One matrix of one row; after one step all means are of that step, after two of both."""
    rule, layout = MLPRule(), Layout(((1, 2),))
    first, second, theta = (torch.tensor(one, dtype=torch.float64) for one in ([3.0, 4.0], [-1.0, 0.5], [0.6, -0.8]))
    given = {name: torch.zeros_like(one, dtype=torch.float64) for name, one in rule.initial(torch.Generator()).items()}

    def features(at: int) -> Tensor:
        """Return an odd feature, over its root mean square, as the update shows it."""
        chosen = {**given, "skip": nn.functional.one_hot(torch.tensor(at), 10).double()}
        _, memory = rule.update(chosen, rule.zeros(theta), first, theta, torch.tensor(1.0), layout)
        return rule.update(chosen, memory, second, theta, torch.tensor(2.0), layout)[0]

    def normalized(x: Tensor) -> Tensor:
        return x / x.square().mean().sqrt()

    def mean(decay: float, one: Tensor, two: Tensor) -> Tensor:
        return (decay * (1 - decay) * one + (1 - decay) * two) / (1 - decay**2)

    v = mean(0.999, first.square(), second.square())
    momenta = [mean(decay, first, second) for decay in (0.9, 0.99, 0.999)]
    torch.testing.assert_close(features(0), normalized(second))
    for place, momentum in enumerate(momenta):
        torch.testing.assert_close(features(1 + place), normalized(momentum))
        torch.testing.assert_close(features(4 + place), normalized(momentum / v.sqrt()))
        # of a single row the factored second moment is the full one: r c / mean(r) = c
        torch.testing.assert_close(features(7 + place), normalized(momentum / v.sqrt()))


def test_gates_of_the_mlp_by_hand() -> None:
    rule, layout = MLPRule(), Layout(((2, 1),))
    gradient, theta = torch.tensor([2.0, -1.0]).double(), torch.tensor([0.3, 0.4]).double()
    given = {name: torch.zeros_like(one, dtype=torch.float64) for name, one in rule.initial(torch.Generator()).items()}
    given["odd"][0, 0], given["gate"][0, 3], given["bias"][0] = 1.0, 2.0, -0.25  # g, gated by |theta|
    found, _ = rule.update(given, rule.zeros(theta), gradient, theta, torch.tensor(1.0), layout)
    size = theta / theta.square().mean().sqrt()
    expected = gradient * (2 * size / (1 + size) - 0.25).clamp(min=0)
    torch.testing.assert_close(found, expected / expected.square().mean().sqrt())


def test_starts_out_as_adam() -> None:
    rule, layout, generator = MLPRule(), Layout(((5, 4),)), torch.Generator().manual_seed(0)
    given, theta = rule.initial(generator), torch.randn(20, generator=generator)
    given["odd"].zero_()
    parameter = nn.Parameter(theta.clone().reshape(5, 4))
    adam = torch.optim.Adam([parameter], lr=1.0, betas=(0.9, 0.999), eps=0.0)
    memory = rule.zeros(theta)
    for step in range(1, 5):
        gradient = torch.randn(20, generator=generator)
        direction, memory = rule.update(given, memory, gradient, theta, torch.tensor(float(step)), layout)
        before = parameter.detach().clone()
        parameter.grad = gradient.reshape(5, 4)
        adam.step()
        moved = (before - parameter.detach()).flatten()
        torch.testing.assert_close(direction, moved / moved.square().mean().sqrt(), rtol=1e-4, atol=1e-5)


def test_lstm_cell_is_that_of_pytorch_and_of_pencil_and_paper() -> None:
    torch.manual_seed(0)
    theirs = nn.LSTMCell(3, 4).double()
    x, hidden, carried = (torch.randn(width, 5, dtype=torch.float64) for width in (3, 4, 4))
    ours = cell(x, hidden, carried, theirs.weight_ih, theirs.weight_hh, theirs.bias_ih + theirs.bias_hh)
    for found, expected in zip(ours, theirs(x.T, (hidden.T, carried.T)), strict=True):
        torch.testing.assert_close(found, expected.T)
    one = torch.ones(1, 1, dtype=torch.float64)
    inward, across = torch.tensor([[1.0], [0.0], [2.0], [0.0]]).double(), torch.zeros(4, 1).double()
    hidden, carried = cell(one, 0 * one, 0.5 * one, inward, across, torch.zeros(4).double())
    sigmoid_of_1 = 1 / (1 + math.exp(-1))
    assert carried.item() == pytest.approx(0.5 * 0.5 + sigmoid_of_1 * math.tanh(2))
    assert hidden.item() == pytest.approx(0.5 * math.tanh(carried.item()))


def test_gradients_as_logarithm_and_sign() -> None:
    given = torch.tensor([math.exp(-3), -math.exp(2), math.exp(-5) / 2, 0.0]).double()
    expected = torch.tensor([[-0.6, 0.4, -1, -1], [1, -1, 0.5, 0]]).double()
    torch.testing.assert_close(log_and_sign(given), expected)


def test_gradients_of_the_other_sign_move_the_other_way(gradients: Tensor, theta: Tensor) -> None:
    rule = update_rule("mlp")
    torch.testing.assert_close(run(rule, -gradients, theta), -run(rule, gradients, theta))
    torch.testing.assert_close(run(rule, gradients, -theta), run(rule, gradients, theta))  # decay is not its matter


def test_neither_the_scale_of_gradients_nor_of_weights_matters(gradients: Tensor, theta: Tensor) -> None:
    rule = update_rule("mlp")
    expected = run(rule, gradients, theta)
    for scale in (1e-6, 1e4):
        torch.testing.assert_close(run(rule, scale * gradients, theta), expected)
        torch.testing.assert_close(run(rule, gradients, scale * theta), expected)


def test_updates_have_size_one_in_every_tensor(gradients: Tensor, theta: Tensor) -> None:
    for part in LAYOUT.apart(run(update_rule("mlp"), gradients, theta)):
        assert float(part.square().mean().sqrt()) == pytest.approx(1)


@pytest.mark.parametrize("name", list(RULES))
def test_coordinates_have_no_names(name: str, gradients: Tensor, theta: Tensor) -> None:
    """Rows and columns of a matrix, and parameters, in another order: the same updates in that order."""
    rule = update_rule(name)
    rows, columns = torch.tensor([1, 0]), torch.tensor([2, 0, 1])

    def permuted(x: Tensor) -> Tensor:
        matrix, vector, number, kernel = LAYOUT.apart(x)
        matrix, kernel = matrix[..., rows, :][..., columns], kernel[..., rows, :, :, :]
        return torch.cat(
            [number.reshape(*x.shape[:-1], -1), kernel.flatten(x.ndim - 1), vector, matrix.flatten(-2)], -1
        )

    layout = Layout(((), (2, 1, 2, 2), (2,), (2, 3)))
    found = run(rule, permuted(gradients), permuted(theta), layout)
    torch.testing.assert_close(found, permuted(run(rule, gradients, theta)))


@pytest.mark.parametrize("name", list(RULES))
def test_several_trainings_at_the_same_time_are_as_each_alone(name: str, gradients: Tensor, theta: Tensor) -> None:
    rule = update_rule(name)
    together = run(rule, torch.stack([gradients, 2 * gradients.flip(0)], 1), torch.stack([theta, -theta]))
    torch.testing.assert_close(together[0], run(rule, gradients, theta))
    torch.testing.assert_close(together[1], run(rule, 2 * gradients.flip(0), -theta))


@pytest.mark.parametrize("name", list(RULES))
def test_coordinates_without_a_gradient_make_no_nan(name: str) -> None:
    rule, layout = update_rule(name), Layout(((2, 2), (2,)))
    given = {key: one.requires_grad_() for key, one in rule.initial(torch.Generator()).items()}
    theta = torch.zeros(6, requires_grad=True)
    gradient = torch.tensor([0.0, 1.0, 0.0, 0.0, 0.0, 0.0])
    direction, _ = rule.update(given, rule.zeros(theta), gradient, theta, torch.tensor(1.0), layout)
    slopes = torch.autograd.grad(direction.square().sum(), [theta, *given.values()], allow_unused=True)
    assert direction.isfinite().all()
    assert all(slope is None or bool(slope.isfinite().all()) for slope in slopes)


def test_layout_puts_tensors_side_by_side_and_apart() -> None:
    tensors = [torch.randn(3, *shape) for shape in LAYOUT.shapes]
    flat = LAYOUT.flat(tensors)
    assert flat.shape == (3, LAYOUT.num_coordinates)
    for found, expected in zip(LAYOUT.apart(flat), tensors, strict=True):
        torch.testing.assert_close(found, expected)
    kernel = tensors[3].flatten(2)
    rows, columns = LAYOUT.rows_and_columns(flat)
    torch.testing.assert_close(LAYOUT.apart(rows)[3].flatten(2), kernel.mean(2, keepdim=True).expand_as(kernel))
    torch.testing.assert_close(LAYOUT.apart(columns)[3].flatten(2), kernel.mean(1, keepdim=True).expand_as(kernel))
    torch.testing.assert_close(LAYOUT.apart(rows)[1], tensors[1])


def test_unknown_rules_are_refused_with_the_nearest() -> None:
    with pytest.raises(ValueError, match=r"'lstmm'; did you mean 'lstm'\?; there are mlp, lstm"):
        update_rule("lstmm")
