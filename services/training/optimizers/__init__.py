"""Optimizers of theta by name, one file a kind."""

from __future__ import annotations

from crossreg.core.errors import UserError, nearest
from crossreg.services.training.optimizers.adamw import AdamW
from crossreg.services.training.optimizers.base import OptimizerKind
from crossreg.services.training.optimizers.cpr import CPR
from crossreg.services.training.optimizers.learned import Learned
from crossreg.services.training.optimizers.sam import GSAM, SAM
from crossreg.services.training.optimizers.sgd import SGD

__all__ = ["OPTIMIZERS", "OptimizerKind", "optimizer_kind"]

OPTIMIZERS: dict[str, OptimizerKind] = {kind.name: kind() for kind in (AdamW, SGD, SAM, GSAM, CPR, Learned)}
"""Every kind by its name."""


def optimizer_kind(name: str) -> OptimizerKind:
    """Return a kind of optimizer.

    Args:
        name: as it is given, which may go on with a file: `learned:FILE`.

    Raises:
        UserError: there is none of this name, or it takes no file.
    """
    kind, colon, file = name.partition(":")
    if kind not in OPTIMIZERS:
        known = ", ".join(OPTIMIZERS)
        raise UserError(f"no optimizer is called {kind!r}{nearest(kind, OPTIMIZERS)}; there are {known}")
    found = OPTIMIZERS[kind]
    if colon and not (found.takes_file and file):
        raise UserError(
            f"optimizer is {name!r}; a file is named as in learned:FILE, and {kind} is all there is to say of others"
        )
    return type(found)(file) if file else found
