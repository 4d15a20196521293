"""Inner trainings and the gradients that meta-training makes of them."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossreg import UserError
from crossreg.losses import Classification, Loss
from crossreg.meta import Episodes, MetaPlan, MetaTask, MetaTrainer, build_small, meta_loss, meta_train, shares
from crossreg.meta.episodes import _FLOOR, Seen, perturbation
from crossreg.meta.trainer import measured
from crossreg.optimizers import Layout, UpdateRule, Weights, update_rule

PLAN = MetaPlan(horizon=40, shortest=20, iterations=6, window=6, trainings=4, seed=3)


def task(network: str = "mlp-relu", name: str = "made up", rows: int = 90) -> MetaTask:
    generator = torch.Generator().manual_seed(0)
    x = torch.randn(rows, 1, 4, 4, generator=generator)
    y = x.flatten(1)[:, :3].argmax(1)
    return MetaTask.of(name, lambda: build_small(network, (1, 4, 4), 3), x, y, batch_size=8)


class Scaled(UpdateRule):
    """Gradient descent whose step size is learned: what it should become is known."""

    name, features, memory, lr = "scaled", 1, 1, 1.0

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        return {"size": torch.tensor(0.1)}

    def update(
        self, weights: Weights, memory: Tensor, gradient: Tensor, theta: Tensor, step: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        return weights["size"] * gradient, memory


class Parabola(nn.Module):
    """Returns its two weights, whatever comes in."""

    def __init__(self) -> None:
        super().__init__()
        self.theta = nn.Parameter(torch.tensor([1.0, -2.0]))

    def forward(self, x: Tensor) -> Tensor:
        return self.theta.expand(len(x), -1)


class Squares(Classification):
    def __call__(self, output: Tensor, target: Tensor) -> Tensor:
        return (output - target).square().mul(torch.tensor([1.0, 3.0])).sum(1).mean() / 2 + 0.1


def parabola() -> MetaTask:
    rows = torch.zeros(40, 2)
    return MetaTask("parabola", Parabola, rows, rows, Squares(), 4)


def path_of(size: Tensor, steps: int, horizon: int) -> Tensor:
    """Return the mean logarithm of the loss over the first steps of descent on the parabola, differentiable in size."""
    theta, curvature = torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, 3.0]).double()
    losses = []
    for step in range(steps):
        rate = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * step / horizon)))
        theta = theta - rate * size * (curvature * theta).detach()
        losses.append(((curvature * theta.square()).sum() / 2 + 0.1 + _FLOOR).log())
    return torch.stack(losses).mean()


def begun(plan: MetaPlan, slots: list[int], one: MetaTask, rule: UpdateRule) -> Episodes:
    return Episodes(one, rule, plan, slots)


def test_truncated_backpropagation_is_the_gradient_without_second_derivatives() -> None:
    plan = dataclasses.replace(PLAN, trainings=1, spread=0.0, weight_decay=0.0, window=1)
    episodes, rule = begun(plan, [0], parabola(), Scaled()), Scaled()
    weights = rule.initial(torch.Generator())
    _, first = episodes.run(weights, 0)
    steps = plan.steps(0)
    horizon = int(episodes._state["horizon"][0])
    size = torch.tensor(0.1, dtype=torch.float64, requires_grad=True)
    path_of(size, steps, horizon).backward()
    assert size.grad is not None
    assert first["size"].item() == pytest.approx(float(size.grad), rel=1e-4)


def test_nres_is_the_gradient_of_the_smoothed_loss() -> None:
    """Many pairs, each perturbed for a whole inner training: their mean is the gradient with all derivatives."""
    pairs = 600
    plan = dataclasses.replace(
        PLAN,
        trainings=pairs,
        spread=0.0,
        weight_decay=0.0,
        estimator="nres",
        sigma=0.01,
        window=4,
        horizon=12,
        shortest=12,
    )
    episodes, weights = begun(plan, list(range(pairs)), parabola(), Scaled()), {"size": torch.tensor(0.1)}
    episodes._state["episode"] += 1  # horizons that differ a little, and not by slot
    estimates, exact = [], []
    for iteration in range(2):
        if iteration:
            ages = episodes._state["age"].clone()
        seen, gradients = episodes.run(weights, iteration)
        assert gradients == {}
        if iteration:
            horizons = episodes._state["horizon"]
            for one, age, horizon in zip(seen, ages.tolist(), horizons.tolist(), strict=True):
                if one.age == age + plan.steps(1):  # it was not begun anew
                    assert one.noise is not None
                    noise = perturbation(weights, one.noise[0], plan.sigma)["size"]
                    estimates.append(float(noise) * one.noise[1])
                    exact.append(_slope(age, plan.steps(1), horizon))
    estimates_, exact_ = torch.tensor(estimates), torch.tensor(exact)
    assert len(estimates_) > pairs / 3
    error = estimates_.std() / len(estimates_) ** 0.5
    assert abs(float(estimates_.mean() - exact_.mean())) < 4 * float(error)
    assert float(error) < 0.1 * abs(float(exact_.mean()))


def _slope(age: int, steps: int, horizon: int) -> float:
    """Return d/d size of the mean logarithm of the loss over a window of descent that began at the start."""

    def mean(size: float) -> float:
        theta, curvature, losses = torch.tensor([1.0, -2.0]).double(), torch.tensor([1.0, 3.0]).double(), []
        for step in range(age + steps):
            rate = 0.5 * (1 + torch.cos(torch.tensor(torch.pi * min(step / horizon, 1))))
            theta = theta - rate * size * curvature * theta
            losses.append(float(((curvature * theta.square()).sum() / 2 + 0.1 + _FLOOR).log()))
        return sum(losses[age:]) / steps

    return (mean(0.1 + 1e-5) - mean(0.1 - 1e-5)) / 2e-5


@pytest.mark.parametrize("estimator", ["gradient", "nres"])
def test_meta_training_finds_a_step_size_that_descends_faster(estimator: Any) -> None:
    plan = dataclasses.replace(
        PLAN,
        estimator=estimator,
        iterations=60,
        lr=0.02,
        spread=0.0,
        weight_decay=0.0,
        sigma=0.02,
        shortest=10,
        horizon=10,
    )
    found = meta_train(Scaled(), plan, [parabola()]).weights["size"].item()
    assert found > 0.2
    before, after = (float(path_of(torch.tensor(size).double(), 10, 10)) for size in (0.1, found))
    assert after < before - 0.3


@pytest.mark.parametrize("rule", ["mlp", "lstm"])
@pytest.mark.parametrize(("name", "estimator"), [("train", "gradient"), ("gam-held-out", "gradient"), ("sam", "nres")])
def test_slots_do_not_know_which_are_beside_them(rule: str, name: str, estimator: Any) -> None:
    """One group of four or two of two: the same gradients and losses, to rounding."""
    plan = dataclasses.replace(PLAN, meta_loss=meta_loss(name), estimator=estimator)
    ends = []
    for groups in ([[0, 1, 2, 3]], [[0, 3], [1, 2]]):
        trainer = MetaTrainer(update_rule(rule), plan)
        crew = [Episodes(task("mlp-norm"), update_rule(rule), plan, slots) for slots in groups]
        values: list[dict[str, float]] = []
        for iteration in range(3):
            weights = {key: one.detach() for key, one in trainer.weights.items()}
            seen, gradients = zip(*(one.run(weights, iteration) for one in crew), strict=True)
            values.append(trainer.update([one for some in seen for one in some], gradients))
        ends.append((values, trainer.weights))
    for one, other in zip(ends[0][0], ends[1][0], strict=True):
        assert one == pytest.approx(other, rel=1e-4, abs=1e-6)
    for key, weight in ends[0][1].items():
        torch.testing.assert_close(weight, ends[1][1][key], rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("estimator", ["gradient", "nres"])
def test_goes_on_exactly_from_its_state(estimator: Any) -> None:
    plan = dataclasses.replace(PLAN, estimator=estimator, iterations=8)
    rule, slots = update_rule("mlp"), list(range(4))

    def advance(trainer: MetaTrainer, episodes: Episodes, until: int) -> None:
        while trainer.iteration < until:
            weights = {key: one.detach() for key, one in trainer.weights.items()}
            seen, gradients = episodes.run(weights, trainer.iteration)
            trainer.update(seen, [gradients])

    whole = MetaTrainer(rule, plan), Episodes(task(), rule, plan, slots)
    advance(*whole, 8)
    first = MetaTrainer(rule, plan), Episodes(task(), rule, plan, slots)
    advance(*first, 5)
    again = MetaTrainer(rule, plan), Episodes(task(), rule, plan, slots)
    trainings, episodes = first[0].state_dict(), first[1].state()
    advance(*first, 7)  # which leaves what was kept as it was
    for _ in range(2):  # lost, gone on, and lost again
        again[0].load_state_dict(trainings)
        again[1].load_state(episodes)
        advance(*again, 8)
    for key, weight in whole[0].weights.items():
        assert torch.equal(weight, again[0].weights[key])


def test_ages_are_staggered_and_horizons_grow() -> None:
    plan = dataclasses.replace(PLAN, iterations=40, horizon=80)
    episodes, weights = (
        Episodes(task(), update_rule("mlp"), plan, range(4)),
        update_rule("mlp").initial(torch.Generator()),
    )
    ages = []
    for iteration in range(20):
        ages.append([one.age for one in episodes.run(weights, iteration)[0]])
    assert len(set(ages[-1])) > 1
    assert [plan.longest(iteration) for iteration in (0, 10, 20, 39)] == [20, 40, 80, 80]
    assert {plan.steps(iteration) for iteration in range(40)} == set(range(3, 10))


def test_what_diverges_is_ended_and_counted() -> None:
    plan = dataclasses.replace(PLAN, inner_lr=1e4)
    episodes, weights = (
        Episodes(task("mlp-relu"), update_rule("mlp"), plan, [0, 1]),
        update_rule("mlp").initial(torch.Generator()),
    )
    seen, gradients = episodes.run(weights, 0)
    assert all(one.diverged for one in seen)
    assert all(bool(one.isfinite().all()) for one in gradients.values())
    assert measured([*seen, Seen(3, 60, -1.5)]) == pytest.approx(
        {"meta/diverged": 2 / 3, "meta/loss": -1.5, "meta/loss/to_00100": -1.5}
    )
    again, _ = episodes.run(weights, 1)
    assert [one.age for one in again] == [plan.steps(1)] * 2 or all(one.diverged for one in again)
    assert episodes._state["episode"].tolist() == [2, 2]


def test_held_out_examples_are_never_in_an_inner_step() -> None:
    one = task()
    inner, other = one.rows(200, False, 0), one.rows(200, True, 0)
    assert set(inner.flatten().tolist()).isdisjoint(other.flatten().tolist())
    assert len(set(inner.flatten().tolist())) + len(set(other.flatten().tolist())) == 90


def test_tasks_are_shared_evenly() -> None:
    plan = dataclasses.replace(PLAN, trainings=8)
    assert shares(plan, 2, 2) == [[0, 1, 4, 5], [2, 3, 6, 7]]
    assert sorted(slot for some in shares(plan, 3, 4) for slot in some) == list(range(8))
    with pytest.raises(UserError, match="8 inner trainings for 9 actors"):
        shares(plan, 9, 1)


def test_the_loss_of_normalized_networks_keeps_no_statistics() -> None:
    for name in ("mlp-norm", "cnn-norm"):
        one = task(name)
        theta = one.initial(0)
        value = one.value(theta, one.x[:8], one.y[:8])
        assert torch.equal(value, one.value(theta, one.x[:8], one.y[:8]))
        assert isinstance(one.loss, Loss)


def test_mistakes_are_said() -> None:
    with pytest.raises(UserError, match="9 examples, too few for batches of 8"):
        task(rows=9)
    with pytest.raises(UserError, match="no small network is called 'mlp-rely'; did you mean 'mlp-relu'"):
        build_small("mlp-rely", (3,), 2)
    with pytest.raises(UserError, match="'cnn-norm' takes images"):
        build_small("cnn-norm", (3,), 2)
    for change, said in (
        ({"horizon": 0}, "horizon of a meta-training is 0"),
        ({"lr": 0.0}, "lr of a meta-training is 0.0; it must be positive"),
        ({"spread": -1.0}, "must not be negative"),
        ({"estimator": "pes"}, "estimator is 'pes'; allowed are gradient and nres"),
    ):
        with pytest.raises(UserError, match=said):
            dataclasses.replace(PLAN, **change)
    with pytest.raises(UserError, match="1 inner trainings cannot be of 2 tasks"):
        meta_train(update_rule("mlp"), dataclasses.replace(PLAN, trainings=1), [task(), task()])
