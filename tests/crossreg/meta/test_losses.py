"""Meta-losses against finite differences in float64, and against their authors' formulas on a quadratic."""

from __future__ import annotations

from collections.abc import Callable

import pytest
import torch
from torch import Tensor

from crossreg import UserError
from crossreg.meta import META_LOSSES, MetaLoss, meta_loss
from crossreg.meta.losses import worst_gradient_norm

THETA = torch.tensor([0.4, -0.7, 1.1, 0.2], dtype=torch.float64)
A = torch.tensor([[3.0, 1, 0, 0.5], [1, 2, -0.5, 0], [0, -0.5, 0.7, 0.1], [0.5, 0, 0.1, 1]], dtype=torch.float64)


def curved(theta: Tensor) -> Tensor:
    return (theta.sin() @ A @ theta.cos() + theta.pow(4).sum() / 4 + 3).log()


def quadratic(theta: Tensor) -> Tensor:
    return 0.5 * theta @ A @ theta


def slope_of(f: Callable[[Tensor], Tensor], at: Tensor, step: float = 1e-6) -> Tensor:
    eye = step * torch.eye(len(at), dtype=at.dtype)
    return torch.stack([(f(at + move) - f(at - move)) / (2 * step) for move in eye])


def unit(x: Tensor) -> Tensor:
    return x / x.norm()


@pytest.mark.parametrize("held_out", [False, True])
def test_the_plain_one_is_the_loss_and_its_gradient(held_out: bool) -> None:
    value, slope = MetaLoss("train", held_out)(curved, THETA)
    torch.testing.assert_close(value, curved(THETA))
    torch.testing.assert_close(slope, slope_of(curved, THETA), rtol=1e-6, atol=1e-8)


def test_sam_is_the_loss_and_gradient_at_the_worst_point_to_first_order() -> None:
    value, slope = MetaLoss("sam", radius=0.3)(curved, THETA)
    there = THETA + 0.3 * unit(slope_of(curved, THETA))
    torch.testing.assert_close(value, curved(there), rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(slope, slope_of(curved, there), rtol=1e-6, atol=1e-7)
    best = max(float(curved(THETA + 0.3 * unit(torch.randn(4).double()))) for _ in range(2000))
    assert best == pytest.approx(float(value), rel=0.05)


def test_gsam_takes_out_what_is_orthogonal_to_the_worst_gradient() -> None:
    value, slope = MetaLoss("gsam", radius=0.3, alpha=0.4)(curved, THETA)
    here = slope_of(curved, THETA)
    worst = slope_of(curved, THETA + 0.3 * unit(here))
    orthogonal = here - (here @ worst) / (worst @ worst) * worst
    torch.testing.assert_close(slope, worst - 0.4 * orthogonal, rtol=1e-5, atol=1e-7)
    highest = MetaLoss("sam", radius=0.3)(curved, THETA)[0]
    torch.testing.assert_close(value, highest + 0.4 * (highest - curved(THETA)))
    assert orthogonal.norm() > 0.01


def test_gam_adds_the_largest_norm_of_the_gradient_nearby() -> None:
    radius, weight = 0.2, 0.7
    value, slope = MetaLoss("gam", radius=radius, weight=weight)(curved, THETA)
    norm = lambda at: slope_of(curved, at).norm()  # noqa: E731
    there = THETA + radius * unit(slope_of(norm, THETA, 1e-4))
    torch.testing.assert_close(value, curved(THETA) + weight * radius * norm(there), rtol=1e-5, atol=1e-6)
    expected = slope_of(curved, THETA) + weight * radius * slope_of(norm, there, 1e-4)
    torch.testing.assert_close(slope, expected, rtol=1e-4, atol=1e-5)


def test_gam_of_a_quadratic_in_closed_form() -> None:
    worst, upward = worst_gradient_norm(quadratic, THETA, 0.2)
    there = THETA + 0.2 * unit(A @ unit(A @ THETA))
    torch.testing.assert_close(worst, 0.2 * (A @ there).norm())
    torch.testing.assert_close(upward, 0.2 * A @ unit(A @ there))


def test_names_say_what_they_are() -> None:
    for name in META_LOSSES:
        assert meta_loss(name).name == name
    assert (meta_loss("gam-held-out", 0.1).kind, meta_loss("gam-held-out", 0.1).held_out) == ("gam", True)
    with pytest.raises(UserError, match=r"'sham'; did you mean 'sam'\?"):
        meta_loss("sham")
    with pytest.raises(UserError, match="radius of the meta-loss is 0; it must be positive"):
        meta_loss("sam", 0)
