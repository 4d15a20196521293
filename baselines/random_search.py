"""Random search over every layer's noise scale."""

from __future__ import annotations

from services.comparison.method import PopulationSearch

__all__ = ["RandomSearch"]


class RandomSearch(PopulationSearch):
    """As many trainings as the population has members, each with noise scales drawn log-uniformly."""

    name = "random-search"
    summary = "random search over every layer's noise scale"
