"""The learned optimizer is one as PyTorch knows them, and gives way to AdamW when it fails."""

from __future__ import annotations

import copy
import io
import warnings
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossreg import UserError
from crossreg.estimators.hypergradient import step_sizes
from crossreg.optimizers import RULES, About, Layout, LearnedOptimizer, LearnedRule, update_rule

X, Y = torch.randn(32, 6, generator=torch.Generator().manual_seed(0)), torch.arange(32) % 3


def learned(name: str = "mlp", horizon: int = 100, lr: float = 0.01) -> LearnedRule:
    rule = update_rule(name)
    return LearnedRule(rule, rule.initial(torch.Generator().manual_seed(3)), About(horizon, lr, "none"))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(6, 8, bias=False), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 3))


def train(model: nn.Module, optimizer: torch.optim.Optimizer, steps: int, schedule: Any = None) -> Tensor:
    loss = torch.zeros(())
    for _ in range(steps):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        optimizer.step()
        if schedule:
            schedule.step()
    return loss.detach()


def saved(*objects: Any) -> list[Any]:
    """Return states that went through a file, read without running code."""
    file = io.BytesIO()
    torch.save([one.state_dict() for one in objects], file)
    file.seek(0)
    return list(torch.load(file, weights_only=True))


@pytest.mark.parametrize("name", list(RULES))
def test_resumes_exactly_with_its_schedule(name: str) -> None:
    def start() -> tuple[nn.Module, LearnedOptimizer, Any]:
        model = network()
        optimizer = LearnedOptimizer(model.parameters(), learned(name), weight_decay=0.1)
        return model, optimizer, torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, 30)

    whole = start()
    train(whole[0], whole[1], 30, whole[2])
    first = start()
    train(first[0], first[1], 13, first[2])
    again = start()
    for one, state in zip(again, saved(*first), strict=True):
        one.load_state_dict(state)
    train(again[0], again[1], 17, again[2])
    for one, other in zip(whole[0].state_dict().values(), again[0].state_dict().values(), strict=True):
        assert torch.equal(one, other)


def test_follows_its_rule_with_decoupled_weight_decay() -> None:
    model, rule = network(), learned()
    twin = copy.deepcopy(model)
    optimizer = LearnedOptimizer(model.parameters(), rule, lr=0.05, weight_decay=0.2)
    layout = Layout.of(twin.parameters())
    theta = layout.flat([one.detach() for one in twin.parameters()])
    memory = rule.rule.zeros(theta)
    for step in range(1, 4):
        gradient = layout.flat(torch.autograd.grad(nn.functional.cross_entropy(twin(X), Y), list(twin.parameters())))
        direction, memory = rule.rule.update(rule.weights, memory, gradient, theta, torch.tensor(float(step)), layout)
        theta = theta * (1 - 0.05 * 0.2) - 0.05 * direction
        for parameter, value in zip(twin.parameters(), layout.apart(theta), strict=True):
            parameter.data = value
        train(model, optimizer, 1)
        torch.testing.assert_close(layout.flat([one.detach() for one in model.parameters()]), theta)


def test_groups_have_rates_of_their_own_and_may_be_added() -> None:
    model = network()
    layers = list(model)
    groups = [{"params": layers[0].parameters(), "lr": 0.0}, {"params": layers[1].parameters()}]
    optimizer = LearnedOptimizer(groups, learned(), lr=0.1)
    optimizer.add_param_group({"params": list(layers[3].parameters()), "lr": 0.2})
    before = copy.deepcopy(model.state_dict())
    train(model, optimizer, 1)
    after = model.state_dict()
    assert torch.equal(after["0.weight"], before["0.weight"])
    for name, lr in (("1.weight", 0.1), ("3.weight", 0.2)):
        moved = (after[name] - before[name]).square().mean().sqrt()
        torch.testing.assert_close(moved, torch.tensor(lr))


def test_a_layer_that_trains_from_later_on_counts_its_own_steps() -> None:
    generator = torch.Generator().manual_seed(0)
    late, alone, early = (nn.Parameter(torch.ones(4)) for _ in range(3))
    both = LearnedOptimizer([early, late], learned())
    one = LearnedOptimizer([alone], learned())
    for step in range(8):
        early.grad = torch.randn(4, generator=generator)
        if step >= 5:
            late.grad = torch.randn(4, generator=generator)
            alone.grad = late.grad.clone()
            one.step()
        both.step()
    torch.testing.assert_close(late, alone)


def test_chunks_make_no_difference(monkeypatch: pytest.MonkeyPatch) -> None:
    ends = []
    for size in (1 << 17, 1):
        monkeypatch.setattr("crossreg.optimizers.learned._TOGETHER", size)
        model = network()
        train(model, LearnedOptimizer(model.parameters(), learned()), 5)
        ends.append(model[0].weight.detach().clone())
    torch.testing.assert_close(*ends)


def test_trains_under_autocast_in_full_precision() -> None:
    model = network()
    optimizer = LearnedOptimizer(model.parameters(), learned())
    losses = []
    for _ in range(20):
        optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16):
            loss = nn.functional.cross_entropy(model(X), Y)
            loss.backward()
            optimizer.step()  # some call it within
        losses.append(loss.item())
    assert all(one.dtype == torch.float32 for state in optimizer.state.values() for one in state.values())
    assert losses[-1] < losses[0] - 0.1


def test_takes_a_closure_and_leaves_what_has_no_gradient_alone() -> None:
    model = network()
    model[0].weight.requires_grad_(False)
    optimizer = LearnedOptimizer(model.parameters(), learned())
    before = model[0].weight.clone()

    def closure() -> Tensor:
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(X), Y)
        loss.backward()
        return loss

    first, last = optimizer.step(closure).item(), 0.0
    for _ in range(30):
        last = optimizer.step(closure).item()
    assert last < first
    assert torch.equal(model[0].weight, before)


def test_says_once_that_it_goes_beyond_its_horizon() -> None:
    model = network()
    optimizer = LearnedOptimizer(model.parameters(), learned(horizon=5))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(model, optimizer, 5)
    with pytest.warns(UserWarning, match=r"step 6: .* trainings of up to 5 steps"):
        train(model, optimizer, 3)


def broken(change: Callable[[nn.Module], None]) -> tuple[nn.Module, LearnedOptimizer, dict[str, Tensor]]:
    """Return a training that failed between steps 20 and 30, and what it was at step 20."""
    model = network()
    optimizer = LearnedOptimizer(model.parameters(), learned())
    train(model, optimizer, 20)
    sound = copy.deepcopy({name: one.detach() for name, one in model.named_parameters()})
    train(model, optimizer, 5)
    with torch.no_grad():
        change(model)
    with pytest.warns(UserWarning, match=r"step 30: the learned optimizer failed: .* AdamW goes on .* at step 20"):
        train(model, optimizer, 5)
    return model, optimizer, sound


@pytest.mark.parametrize("value", [1e6, float("nan"), float("inf")])
def test_falls_back_to_adamw_from_the_last_good_state(value: float) -> None:
    model, optimizer, sound = broken(lambda model: model[3].weight.fill_(value))
    assert optimizer.fallen_back == 30
    for name, one in model.named_parameters():
        assert torch.equal(one, sound[name])
    twin = network()
    twin.load_state_dict(model.state_dict())
    adamw = torch.optim.AdamW(twin.parameters(), lr=0.01, weight_decay=0.0)
    train(twin, adamw, 5)
    train(model, optimizer, 5)
    for one, other in zip(model.parameters(), twin.parameters(), strict=True):
        torch.testing.assert_close(one, other)


def test_a_fallen_back_training_resumes_as_such() -> None:
    model, optimizer, _ = broken(lambda model: model[3].weight.fill_(1e6))
    train(model, optimizer, 2)
    again = network()
    other = LearnedOptimizer(again.parameters(), learned())
    for one, state in zip((again, other), saved(model, optimizer), strict=True):
        one.load_state_dict(state)
    assert other.fallen_back == 30
    train(model, optimizer, 3)
    train(again, other, 3)
    assert all(torch.equal(a, b) for a, b in zip(model.parameters(), again.parameters(), strict=True))


def test_a_state_of_another_rule_is_refused() -> None:
    model = network()
    one, other = LearnedOptimizer(model.parameters(), learned()), LearnedOptimizer(model.parameters(), learned("lstm"))
    train(model, one, 1)
    with pytest.raises(UserError, match="take the file that the run began with"):
        other.load_state_dict(one.state_dict())
    with pytest.raises(UserError, match="of a learned optimizer None"):
        one.load_state_dict(torch.optim.AdamW(model.parameters()).state_dict())


def test_what_it_cannot_do_is_said() -> None:
    model = network()
    with pytest.raises(UserError, match="norm_limit is 1; it must be above 1"):
        LearnedOptimizer(model.parameters(), learned(), norm_limit=1)
    optimizer = LearnedOptimizer(model.parameters(), learned())
    with pytest.raises(UserError, match="does not say how far it goes"):
        step_sizes(optimizer, list(model.parameters()))
    table = nn.Embedding(4, 2, sparse=True)
    table(torch.tensor([1])).sum().backward()
    with pytest.raises(UserError, match="sparse or complex"):
        LearnedOptimizer(table.parameters(), learned()).step()
