"""Terms between the members of an ensemble: their values, their bounds, and what they do to linear members."""

from __future__ import annotations

from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg import UserError
from crossreg.batches import Batches
from crossreg.estimators import Direct, Unrolled
from crossreg.losses import Classification, GaussianRegression
from crossreg.models import Ensemble, SharedMLP
from crossreg.regularizer import CrossRegularizer
from crossreg.regularizers.penalties import training_loss
from crossreg.regularizers.registry import attach, hyperparameters, remove

X = torch.randn(40, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
NUMBERS = X @ torch.arange(5.0, dtype=torch.float64)[:, None] + torch.randn(40, 1, dtype=torch.float64).sign()
CLASSES = torch.arange(40) % 3


def ensemble(task: str, members: int = 3, **regularizers: Any) -> Ensemble:
    torch.manual_seed(1)
    outputs = 1 if task == "regression" else 3
    made = Ensemble([nn.Linear(5, outputs).double() for _ in range(members)], task)  # type: ignore[arg-type]
    values = {name: value if isinstance(value, float) else value.pop("value") for name, value in regularizers.items()}
    options = {name: value for name, value in regularizers.items() if isinstance(value, dict)}
    attach(made, values, options)
    return made


def outputs(model: Ensemble) -> list[Tensor]:
    return [member(X) for member in model.members]


def objective(model: Ensemble, task: str) -> Tensor:
    loss = GaussianRegression() if task == "regression" else Classification()
    return training_loss(model, loss, model(X), NUMBERS if task == "regression" else CLASSES)


def pairs(found: list[Tensor]) -> list[tuple[Tensor, Tensor]]:
    return [(a, b) for i, a in enumerate(found) for b in found[i + 1 :]]


def test_members_see_the_same_rows_and_each_learns_as_it_would_alone() -> None:
    model = ensemble("classification", consistency=1e-6)
    assert model(X).shape == (3, 40, 3)
    assert model.shares == 1
    objective(model, "classification").backward()
    for member in model.members:
        alone = nn.Linear(5, 3).double()
        alone.load_state_dict(member.state_dict())
        F.cross_entropy(alone(X), CLASSES).backward()
        torch.testing.assert_close(member.weight.grad, alone.weight.grad, rtol=1e-4, atol=1e-6)


@pytest.mark.parametrize("task", ["regression", "classification"])
@pytest.mark.parametrize(("name", "sign"), [("consistency", 0.3), ("diversity", -0.3 / 3)])
def test_the_squared_difference_of_pairs(task: str, name: str, sign: float) -> None:
    model = ensemble(task, **{name: 0.3})
    found = outputs(model)
    losses = [F.cross_entropy(o, CLASSES) if task == "classification" else 0.5 * F.mse_loss(o, NUMBERS) for o in found]
    seen = [o.softmax(1) for o in found] if task == "classification" else found
    distances = [0.5 * (a - b).square().sum(1).mean() for a, b in pairs(seen)]
    expected = (sum(losses) + sign * sum(distances)) / 3
    torch.testing.assert_close(objective(model, task), expected, check_dtype=False)


def test_cosine_and_gap() -> None:
    model = ensemble("classification", diversity={"value": 0.3, "measure": "cosine", "weight": "gap"})
    found = outputs(model)
    losses = [F.cross_entropy(o, CLASSES) for o in found]
    gaps = [abs(a - b).clamp(max=1) for a, b in pairs(losses)]
    distances = [(1 - F.cosine_similarity(a.softmax(1), b.softmax(1))).mean() for a, b in pairs(found)]
    expected = (sum(losses) - 0.3 * sum(g * d for g, d in zip(gaps, distances, strict=True))) / 3
    torch.testing.assert_close(objective(model, "classification"), expected, check_dtype=False)


def test_negative_correlation_pulls_each_towards_what_the_average_lacks() -> None:
    """Liu and Yao 1999: the gradient of a member is (f_m - y) - lambda (f_m - average)."""
    model = ensemble("regression", diversity={"value": 0.7, "measure": "negative-correlation"})
    found = outputs(model)
    mean = sum(found) / 3
    objective(model, "regression").backward()
    for member, own in zip(model.members, found, strict=True):
        slope = (own - NUMBERS) - 0.7 * (own - mean)
        torch.testing.assert_close(member.weight.grad, (slope * X).mean(0, keepdim=True).detach(), rtol=1e-5, atol=1e-7)


def test_of_numbers_all_of_diversity_is_joint_training() -> None:
    near = 1 - 1e-7
    gradients = []
    for given in ({"diversity": near}, {"joint": near}):
        model = ensemble("regression", 2, **given)
        objective(model, "regression").backward()
        gradients.append([member.weight.grad for member in model.members])
    for one, other in zip(*gradients, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("beta", [0.25, 0.75])
def test_joint_training_of_classes(beta: float) -> None:
    model = ensemble("classification", joint=beta)
    found = outputs(model)
    mean = sum(o.softmax(1) for o in found) / 3
    expected = (1 - beta) * sum(F.cross_entropy(o, CLASSES) for o in found) / 3 + beta * F.nll_loss(mean.log(), CLASSES)
    torch.testing.assert_close(objective(model, "classification"), expected, check_dtype=False)


def test_linear_members_spread_as_the_closed_form_says() -> None:
    """Two ridge regressions with other strengths; with diversity w = d / 2 a member solves a linear system."""
    strengths = (0.1, 3.0)

    def spread(d: float | None) -> float:
        model = ensemble("regression", 2, **({} if d is None else {"diversity": d}))
        optimizer = torch.optim.LBFGS(model.members.parameters(), max_iter=500, tolerance_grad=1e-12)

        def closure() -> Tensor:
            optimizer.zero_grad()
            ridge = sum(0.5 * s * m.weight.square().sum() for s, m in zip(strengths, model.members, strict=True))
            losses = [0.5 * F.mse_loss(output, NUMBERS) for output in outputs(model)]
            # a member's gradient is as if it were alone: that of the sum
            value = sum(losses) if d is None else objective(model, "regression")
            total = value + ridge
            total.backward()
            return total

        optimizer.step(closure)
        one, other = outputs(model)
        return float((one - other).detach().square().mean())

    d = 0.6
    x = torch.cat([X, torch.ones(40, 1, dtype=torch.float64)], 1)
    gram, moment = x.T @ x / 40, x.T @ NUMBERS / 40
    own = [torch.diag(torch.tensor([s] * 5 + [0.0], dtype=torch.float64)) for s in strengths]
    w = d / 2
    system = torch.cat([
        torch.cat([(1 - w) * gram + own[0], w * gram], 1),
        torch.cat([w * gram, (1 - w) * gram + own[1]], 1),
    ])  # fmt: skip
    solved = torch.linalg.solve(system, torch.cat([moment, moment]))[:, 0]
    expected = float(((x @ (solved[:6] - solved[6:])) ** 2).mean())
    assert spread(d) == pytest.approx(expected, rel=1e-4)
    assert expected > spread(None)


def test_what_is_refused() -> None:
    for name in ("diversity", "joint"):
        with pytest.raises(UserError, match=f"{name} is 1.2; it must lie in 1e-07..1 "):
            ensemble("regression", **{name: 1.2})
    with pytest.raises(UserError, match="no weight for which the loss has a minimum"):
        ensemble("classification", diversity={"value": 0.1, "on": "outputs"})
    with pytest.raises(UserError, match="consistency.measure is 'negative-correlation'; it is one of squared, cosine"):
        ensemble("regression", consistency={"value": 0.1, "measure": "negative-correlation"})
    with pytest.raises(UserError, match="diversity is between networks, and there is one; give --ensemble"):
        attach(nn.Linear(2, 2), {"diversity": 0.5})
    model = ensemble("classification", diversity=0.5)
    with pytest.raises(UserError, match="diversity"):
        CrossRegularizer(model, Classification(), [(X, CLASSES)], learn=["diversity"], estimator=Direct())


def test_a_weight_is_learned_by_unrolling() -> None:
    model = ensemble("classification", diversity=0.5)
    optimizer = torch.optim.SGD(model.members.parameters(), 0.1)
    estimator = Unrolled(Batches(X, CLASSES, 20), steps=1)
    learner = CrossRegularizer(model, Classification(), [(X, CLASSES)], 1, 1, learn=["diversity"], estimator=estimator)
    estimator.optimizer = optimizer
    before = hyperparameters(model)["diversity"].value
    objective(model, "classification").backward()
    optimizer.step()
    optimizer.zero_grad()
    learner.step()
    after = hyperparameters(model)["diversity"].value
    assert after != before
    assert 0 < after < 1


def test_members_that_share_their_weights_are_compared_too() -> None:
    torch.manual_seed(1)
    made = SharedMLP(3, "classification", input_shape=(5,), num_outputs=3, hidden=8, depth=1, norm="layer").double()
    plain = training_loss(made, Classification(), made.each(X).flatten(0, 1), CLASSES.repeat(3))
    attach(made, {"joint": 0.5})
    assert made.shares == 1
    each = made(X)
    mean = each.softmax(2).mean(0)
    expected = 0.5 * plain + 0.5 * F.nll_loss(mean.log(), CLASSES)
    torch.testing.assert_close(training_loss(made, Classification(), each, CLASSES), expected, check_dtype=False)


def test_taken_out_members_see_rows_of_their_own_again() -> None:
    model = ensemble("classification", diversity=0.5, joint=0.5)
    remove(model)
    assert model.shares == 3
    assert model(X).shape == (40, 3)
