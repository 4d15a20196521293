from __future__ import annotations

import pytest
import torch
from torch import nn

from crossreg import UserError
from crossreg.services.training.optimizers.cpr import AdamCPR


def problem(dtype: torch.dtype = torch.float64) -> tuple[nn.Parameter, nn.Parameter, torch.Tensor]:
    generator = torch.Generator().manual_seed(0)
    weight = nn.Parameter(0.05 * torch.randn(6, 5, generator=generator, dtype=dtype))
    bias = nn.Parameter(torch.randn(5, generator=generator, dtype=dtype))
    return weight, bias, torch.randn(6, 5, generator=generator, dtype=dtype)


def loss_of(weight: torch.Tensor, bias: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return (weight + bias - target).square().sum()


def step(optimizer: torch.optim.Optimizer, weight: nn.Parameter, bias: nn.Parameter, target: torch.Tensor) -> None:
    optimizer.zero_grad()
    loss_of(weight, bias, target).backward()
    optimizer.step()


def test_it_is_adam_followed_by_the_formula() -> None:
    weight, bias, target = problem()
    optimizer = AdamCPR([weight, bias], 0.05, warm_start=8, kappa_update=3.0)
    twin_weight, twin_bias, _ = problem()
    adam = torch.optim.Adam([twin_weight, twin_bias], 0.05)
    kappa, multiplier = None, 0.0
    for t in range(1, 31):
        step(optimizer, weight, bias, target)
        step(adam, twin_weight, twin_bias, target)
        with torch.no_grad():
            measure = float(twin_weight.square().sum())
            if t == 8:
                kappa = measure
            if t > 8:
                assert kappa is not None
                multiplier = max(0.0, multiplier + 3.0 / 30 * (measure - kappa))
                twin_weight.sub_(2 * multiplier * twin_weight)
        torch.testing.assert_close(weight, twin_weight, rtol=1e-12, atol=1e-14)
        torch.testing.assert_close(bias, twin_bias, rtol=1e-12, atol=1e-14)
    assert multiplier > 0
    assert "kappa" not in optimizer.state[bias]


def test_norms_end_at_their_bounds_where_the_loss_wants_more() -> None:
    weight, bias, target = problem()
    bias.requires_grad_(False)
    optimizer = AdamCPR([weight], 0.01, warm_start=50)
    for _ in range(2000):
        step(optimizer, weight, bias, target)
    kappa, multiplier = (float(optimizer.state[weight][name]) for name in ("kappa", "multiplier"))
    assert 0 < kappa < 0.5 * float((target - bias).square().sum())  # the loss alone would take it further
    # what rests at the bound is the norm between Adam's step and the pull
    assert float(weight.square().sum().detach()) / (1 - 2 * multiplier) ** 2 == pytest.approx(kappa, rel=0.001)


def test_a_state_in_the_warm_start_or_after_continues_exactly() -> None:
    for stop in (5, 17):
        weight, bias, target = problem(torch.float32)
        whole = AdamCPR([weight, bias], 0.05, warm_start=10)
        state, values = {}, []
        for t in range(1, 31):
            step(whole, weight, bias, target)
            if t == stop:
                state, values = whole.state_dict(), [weight.detach().clone(), bias.detach().clone()]
                state = {"state": {k: {n: v.clone() for n, v in s.items()} for k, s in state["state"].items()},
                         "param_groups": state["param_groups"]}  # fmt: skip
        other_weight, other_bias = (nn.Parameter(value) for value in values)
        resumed = AdamCPR([other_weight, other_bias], 0.05, warm_start=10)
        resumed.load_state_dict(state)
        for _ in range(stop, 30):
            step(resumed, other_weight, other_bias, target)
        assert torch.equal(weight, other_weight)
        assert torch.equal(bias, other_bias)


def test_a_longer_warm_start_leaves_bounds_that_are_set() -> None:
    weight, bias, target = problem()
    optimizer = AdamCPR([weight, bias], 0.05, warm_start=5)
    for _ in range(10):
        step(optimizer, weight, bias, target)
    bound = optimizer.state[weight]["kappa"].clone()
    longer = AdamCPR([weight, bias], 0.05, warm_start=50)
    longer.load_state_dict(optimizer.state_dict())
    for _ in range(60):
        step(longer, weight, bias, target)
    assert torch.equal(longer.state[weight]["kappa"], bound)


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"warm_start": 0}, "warm_start is 0"),
        ({"warm_start": 5, "kappa_update": 0.0}, "kappa_update is 0.0"),
    ],
)
def test_mistakes_are_named(options: dict[str, float], words: str) -> None:
    with pytest.raises(UserError, match=words):
        AdamCPR([nn.Parameter(torch.zeros(2, 2))], **options)  # type: ignore[arg-type]
