"""Functions of a logarithmic strength, looked at over a grid and then to many digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["first_fall", "lowest"]


def lowest(value: Callable[[float], float], grid: Sequence[float]) -> tuple[float, float]:
    """Return the strength of the lowest value, and that value.

    Args:
        value: of a strength.
        grid: logarithms of strengths, from small to large.
    """
    from scipy.optimize import minimize_scalar

    best = min(range(1, len(grid) - 1), key=lambda index: value(math.exp(grid[index])))
    bounds = (grid[best - 1], grid[best + 1])
    found = minimize_scalar(lambda log: value(math.exp(log)), bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return math.exp(found.x), float(found.fun)


def first_fall(slope: Callable[[float], float], grid: Sequence[float]) -> float | None:
    """Return the smallest strength at which a slope turns from above to below zero; None where it never does.

    Args:
        slope: of a strength.
        grid: logarithms of strengths, from small to large.
    """
    from scipy.optimize import brentq

    values = [slope(math.exp(log)) for log in grid]
    falls = [place for place in range(len(grid) - 1) if values[place] > 0 >= values[place + 1]]
    if not falls:
        return None
    return math.exp(brentq(lambda log: slope(math.exp(log)), grid[falls[0]], grid[falls[0] + 1]))
