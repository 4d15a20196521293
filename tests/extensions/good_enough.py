"""A stopping rule that the project does not have: ends where the held-out score is good enough."""

from __future__ import annotations

from collections.abc import Sequence

from crossreg.training.stopping import StoppingRule

__all__ = ["GoodEnough"]


class GoodEnough(StoppingRule):
    """Ends at a held-out score."""

    name = "good_enough"
    help = "held-out score at which to end"

    def should_stop(self, scores: Sequence[float]) -> bool:
        """Say whether the last one is as low."""
        return bool(scores) and scores[-1] <= self.value
