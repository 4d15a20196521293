"""Optimizers of theta by name, one file a kind."""

from __future__ import annotations

from crossreg.core.errors import UserError, nearest
from services.training.optimizers.adamw import AdamW
from services.training.optimizers.base import OptimizerKind
from services.training.optimizers.cpr import CPR
from services.training.optimizers.sam import GSAM, SAM
from services.training.optimizers.sgd import SGD

__all__ = ["OPTIMIZERS", "OptimizerKind", "optimizer_kind"]

OPTIMIZERS: dict[str, OptimizerKind] = {kind.name: kind() for kind in (AdamW, SGD, SAM, GSAM, CPR)}
"""Every kind by its name."""


def optimizer_kind(name: str) -> OptimizerKind:
    """Return a kind of optimizer.

    Raises:
        UserError: there is none of this name.
    """
    if name not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise UserError(f"no optimizer is called {name!r}{nearest(name, OPTIMIZERS)}; there are {known}")
    return OPTIMIZERS[name]
