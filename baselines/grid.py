"""A grid over all that the cross-regularized run learns."""

from __future__ import annotations

import itertools

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import PopulationSearch
from crossreg.services.search.spec import Values

__all__ = ["Grid", "points_by_axis"]


class Grid(PopulationSearch):
    """As many points as the population has members, evenly spaced on the scale of each axis.

    An axis is a regularizer: all its parts, such as the noise scales of all layers, have one value.
    """

    name = "grid"
    summary = "a grid over all that crossreg learns, one value for all layers"

    def starts(self, conditions: Conditions, seed: int, size: int) -> list[Values]:
        """Return the grid's points; an axis of one point is at the middle of its range."""
        axes = list(dict.fromkeys(name.partition("/")[0] for name in conditions.space))
        places = [
            [place / (count - 1) if count > 1 else 0.5 for place in range(count)]
            for count in points_by_axis(size, len(axes))
        ]
        return [
            {name: one.at(point[axes.index(name.partition("/")[0])]) for name, one in conditions.space.items()}
            for point in itertools.product(*places)
        ]


def points_by_axis(size: int, axes: int) -> list[int]:
    """Return how many points each axis gets, so that their product is a size; the first axes get more.

    >>> points_by_axis(8, 2)
    [4, 2]
    """
    counts, divisor = [1] * axes, 2
    while size > 1:
        while size % divisor == 0:
            counts[counts.index(min(counts))] *= divisor
            size //= divisor
        divisor += 1
    return sorted(counts, reverse=True)
