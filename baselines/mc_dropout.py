"""Monte Carlo dropout: dropout in training and, averaged over draws, at test time.

Source: Gal and Ghahramani 2016, arXiv:1506.02142.
"""

from __future__ import annotations

from typing import Any

from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import SingleRun, with_dropout

__all__ = ["MCDropout"]


class MCDropout(SingleRun):
    """As many draws at test time as the noisy methods take."""

    name = "mc-dropout"
    summary = "dropout 0.5, averaged over draws at test time, in place of what crossreg learns"

    def changes(self, conditions: Conditions, seed: int) -> dict[str, Any]:
        """Return what puts dropout in the noise's place."""
        return {"mc_dropout": True, **with_dropout(conditions, 0.5)}
