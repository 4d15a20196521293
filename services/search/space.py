"""Search spaces, and how values of hyperparameters are written into Ray Tune's configurations.

A space is a selection of the registry: names, and for each its range and scale. Searchers that propose by a model of
their own look through *positions*, uniform between 0 and 1 on each range and its scale.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from crossreg.regularizers.base import Hyperparameter
from crossreg.regularizers.registry import description
from crossreg.services.search.spec import Values

__all__ = ["Explore", "Space", "explorer", "position_key", "space_of", "value_key", "values_in"]

Space = dict[str, Hyperparameter]
"""What a search looks through, by name."""

Explore = Callable[[Values, random.Random], Values]
"""Returns new values from a donor's."""

_OTHER_KEYS = ("trial", "hyperparameters", "state")


def space_of(names: Iterable[str]) -> Space:
    """Return the space of hyperparameters, over the ranges that the registry gives."""
    return {name: description(name) for name in names}


def value_key(name: str) -> str:
    """Return a hyperparameter's key at the top of a Tune configuration, where a slash would mean nesting."""
    return name.replace("/", "|")


def explorer(space: Space, factors: Sequence[float] = (0.8, 1.25), resample: float = 0.25) -> Explore:
    """Return the function by which a population explores.

    Args:
        space: what it looks through.
        factors: one of them, at random, a value is multiplied by.
        resample: probability that a value is drawn anew instead.

    Source: Jaderberg et al. 2017, arXiv:1711.09846.
    """

    def explore(values: Values, rng: random.Random) -> Values:
        return {
            name: one.at(rng.random()) if rng.random() < resample else one.perturbed(values[name], rng.choice(factors))
            for name, one in space.items()
        }

    return explore


def position_key(name: str) -> str:
    """Return the key of a hyperparameter's position."""
    return f"position({value_key(name)})"


def values_in(config: Mapping[str, Any]) -> Values:
    """Return the values in a trial's configuration.

    They are under `hyperparameters`, or at its top, where some of Tune's schedulers change them: under `position_key`,
    or under `value_key` and then kept within the range, which those schedulers do not know.
    """
    values: Values = dict(config.get("hyperparameters", {}))
    for key, given in config.items():
        if key in _OTHER_KEYS:
            continue
        name = key.replace("|", "/")
        if name.startswith("position("):
            name = name[9:-1]
            values[name] = description(name).at(given)
        else:
            low, high = description(name).range
            values[name] = min(max(float(given), low), high)
    return values
