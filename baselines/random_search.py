"""Random search over all that the cross-regularized run learns."""

from __future__ import annotations

from crossreg.services.comparison.method import PopulationSearch

__all__ = ["RandomSearch"]


class RandomSearch(PopulationSearch):
    """As many trainings as the population has members, each drawn uniformly on the scale of every range."""

    name = "random-search"
    summary = "random search over all that crossreg learns"
