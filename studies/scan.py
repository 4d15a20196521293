"""The minimum and the zero of a function of a positive number: found on a logarithmic grid, then to many digits."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

__all__ = ["first_fall", "lowest"]


def lowest(value: Callable[[float], float], grid: Sequence[float]) -> tuple[float, float]:
    """Return where a function is lowest, and its value there.

    Args:
        value: the function, of a strength of regularization.
        grid: logarithms of strengths, ascending; the minimum is sought around the lowest of them.
    """
    from scipy.optimize import minimize_scalar

    best = min(range(1, len(grid) - 1), key=lambda index: value(math.exp(grid[index])))
    bounds = (grid[best - 1], grid[best + 1])
    found = minimize_scalar(lambda log: value(math.exp(log)), bounds=bounds, method="bounded", options={"xatol": 1e-9})
    return math.exp(found.x), float(found.fun)


def first_fall(slope: Callable[[float], float], grid: Sequence[float]) -> float | None:
    """Return the smallest strength at which a function falls through zero; None where it never does.

    Args:
        slope: the function, of a strength of regularization.
        grid: logarithms of strengths, ascending; a fall within one interval of the grid is found.
    """
    from scipy.optimize import brentq

    values = [slope(math.exp(log)) for log in grid]
    falls = [place for place in range(len(grid) - 1) if values[place] > 0 >= values[place + 1]]
    if not falls:
        return None
    return math.exp(brentq(lambda log: slope(math.exp(log)), grid[falls[0]], grid[falls[0] + 1]))
