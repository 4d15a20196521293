"""Noise from the bank against what independent normal numbers are."""

from __future__ import annotations

import copy

import pytest
import torch
from scipy import stats
from torch import nn

from crossreg import inject_noise
from crossreg.regularizers.normal import _HALF, standard_normal_like
from tests.crossreg.conftest import small_model

SIZE = 1_000_000


def draw(*shape: int, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    return standard_normal_like(torch.empty(*shape, dtype=dtype))


@pytest.mark.parametrize("seed", range(5))
def test_moments_and_tails_are_those_of_a_normal(seed: int) -> None:
    torch.manual_seed(seed)
    eps = draw(SIZE).double().numpy()
    # each of these is zero on average, with a known standard error
    errors = {
        "mean": eps.mean() * SIZE**0.5,
        "variance": ((eps**2).mean() - 1) * (SIZE / 2) ** 0.5,
        "skewness": (eps**3).mean() * (SIZE / 15) ** 0.5,
        "kurtosis": ((eps**4).mean() - 3) * (SIZE / 96) ** 0.5,
    }
    for bound in (1, 2, 3, 4):
        p = 2 * stats.norm.sf(bound)
        errors[f"beyond {bound}"] = ((abs(eps) > bound).mean() - p) * (SIZE / (p * (1 - p))) ** 0.5
    assert max(map(abs, errors.values())) < 4.5, errors
    assert stats.kstest(eps[:100_000], "norm").pvalue > 1e-4


def test_over_many_draws_nothing_is_left_of_the_mean_or_of_a_place() -> None:
    torch.manual_seed(0)
    draws = torch.stack([draw(300) for _ in range(20_000)])
    z = draws.mean(0) * len(draws) ** 0.5
    assert stats.kstest(z.numpy(), "norm").pvalue > 1e-3
    products = (draws[:, :-1] * draws[:, 1:]).mean(0) * len(draws) ** 0.5
    assert stats.kstest(products.numpy(), "norm").pvalue > 1e-3


def test_layers_steps_and_ranks_draw_independently() -> None:
    found = []
    for rank in range(2):
        torch.manual_seed(100 + rank)
        found += [draw(64, 50_00).flatten() for _step in range(3) for _layer in range(2)]
    correlations = torch.corrcoef(torch.stack(found)) - torch.eye(len(found))
    assert float(correlations.abs().max()) < 5 / found[0].numel() ** 0.5
    squares = torch.corrcoef(torch.stack(found).square()) - torch.eye(len(found))
    assert float(squares.abs().max()) < 5 / found[0].numel() ** 0.5


def test_a_seed_and_a_state_give_the_same_draw_again() -> None:
    torch.manual_seed(3)
    first, state, second = draw(1000), torch.get_rng_state(), draw(1000)
    assert not torch.equal(first, second)
    torch.manual_seed(3)
    assert torch.equal(draw(1000), first)
    torch.set_rng_state(state)
    assert torch.equal(draw(1000), second)


@pytest.mark.parametrize("dtype", [torch.float64, torch.bfloat16, torch.float16])
def test_it_has_the_dtype_asked_for(dtype: torch.dtype) -> None:
    eps = draw(100_000, dtype=dtype)
    assert eps.dtype == dtype
    assert float(eps.double().std()) == pytest.approx(1, abs=0.02)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1), (0, 2, 1)])
def test_it_has_the_layout_of_its_model(order: tuple[int, ...]) -> None:
    x = torch.empty(6, 7, 8).permute(order)
    eps = standard_normal_like(x)
    assert (eps.shape, eps.stride()) == (x.shape, torch.empty_like(x).stride())
    assert eps.unique().numel() == eps.numel()
    sliced = standard_normal_like(torch.empty(6, 9)[:, ::2])
    assert sliced.shape == (6, 5)
    assert sliced.unique().numel() == 30


def test_more_than_a_window_is_made_of_several() -> None:
    eps = draw(2 * _HALF + 5)
    assert eps.shape == (2 * _HALF + 5,)
    assert float(eps.mean()) == pytest.approx(0, abs=2e-3)
    assert float(eps.std()) == pytest.approx(1, abs=2e-3)
    parts = eps[:_HALF], eps[_HALF : 2 * _HALF]
    assert abs(float(torch.corrcoef(torch.stack(parts))[0, 1])) < 2e-3


def test_members_under_vmap_draw_their_own() -> None:
    model = inject_noise(nn.Sequential(nn.Linear(4, 4), nn.LayerNorm(4)), temperature=False)
    x = torch.randn(5, 4)
    rows = torch.func.vmap(model, randomness="different")(x.expand(3, 5, 4))
    assert not torch.equal(rows[0], rows[1])


def test_the_bank_stays_what_it_is() -> None:
    torch.manual_seed(1)
    before = draw(1000).clone()
    model = inject_noise(copy.deepcopy(small_model("layer")))
    for _ in range(20):
        model(torch.randn(16, 8)).sum().backward()
    torch.manual_seed(1)
    assert torch.equal(draw(1000), before)
