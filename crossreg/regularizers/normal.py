"""Standard normal noise for a whole activation: on a CPU read from a bank of values instead of drawn one by one.

Drawing a normal number costs a CPU as much as reading nine (`docs/performance.md`), and was most of what noise cost. So
there it is drawn once: 2^23 values of a fixed seed, scaled to variance one and followed by their negatives, so that the
mean of all and every other odd moment is zero. A draw is a window of them at a random place, which is half the time one
of the negatives' (a random sign). The place comes from torch's generator: seeds, replays and the states in checkpoints
mean what they mean for any other draw, and nothing else needs to be kept.

Within a window values are independent. Two windows share values where they overlap, each at another place.
"""

from __future__ import annotations

from functools import cache

import torch
from torch import Tensor

__all__ = ["standard_normal_like"]

_HALF = 1 << 23  # of the bank, 32 MiB; windows are no longer, so that none holds a value and its negative


def standard_normal_like(x: Tensor) -> Tensor:
    """Return standard normal noise of x's shape, dtype, device and layout; not to be changed in place."""
    if x.device.type != "cpu" or torch.compiler.is_compiling() or torch._C._functorch.maybe_current_level() is not None:
        return _drawn(x)
    flat = _window(x.numel()).to(x.dtype)
    return flat.view(x.shape) if x.is_contiguous() else flat.as_strided(x.shape, _dense_strides(x))


def _window(size: int) -> Tensor:
    """Return `size` values; of several windows where one is not long enough."""
    if size > _HALF:
        return torch.cat([_window(min(_HALF, size - start)) for start in range(0, size, _HALF)])
    start = int(torch.randint(2 * _HALF - size + 1, ()))
    return _bank()[start : start + size]


@cache
def _bank() -> Tensor:
    values = torch.randn(_HALF, generator=torch.Generator().manual_seed(0))
    values /= values.square().mean().sqrt()
    return torch.cat([values, -values])


def _dense_strides(x: Tensor) -> tuple[int, ...]:
    """Return the strides of a dense tensor in the layout of x."""
    return torch.empty_like(x, device="meta").stride()


def _drawn(x: Tensor) -> Tensor:
    """Draw it.

    `torch.randn_like` of a channels-last tensor on the CPU fills it element by element, several times slower than
    filling contiguous memory; so a channels-last draw is a contiguous one seen through a permutation.
    """
    if x.ndim == 4 and not x.is_contiguous() and x.is_contiguous(memory_format=torch.channels_last):
        n, c, h, w = x.shape
        return torch.randn(n, h, w, c, dtype=x.dtype, device=x.device).permute(0, 3, 1, 2)
    return torch.randn_like(x)
