"""A training that starts from weights of a file, and leaves some of them as they are."""

from __future__ import annotations

import hashlib
from pathlib import Path

from torch import nn

from crossreg.core.errors import UserError, some
from crossreg.core.modules import own_name
from crossreg.models import Ensemble, SharedMLP
from crossreg.models.weights import Taken, freeze, read_weights, take_weights
from crossreg.services.training.config import TrainConfig

__all__ = ["fine_tune"]


def fine_tune(model: nn.Module, config: TrainConfig, num_outputs: int) -> list[str]:
    """Take the weights that a configuration starts from and freeze what it names, in place.

    Args:
        model: as it is trained, with what regularizes it; every network of an ensemble starts from the same weights.
        config: its `init_from` and `freeze`.
        num_outputs: of the model.

    Returns:
        What was taken, left out and frozen, a line each.

    Raises:
        UserError: the weights cannot be read or do not fit, or a pattern fits none.
    """
    said = []
    if config.init_from is not None:
        if isinstance(model, SharedMLP):
            raise UserError("networks that share their weights do not start from a file; use --ensemble 1")
        networks = list(model.members) if isinstance(model, Ensemble) else [model]
        weights = read_weights(config.init_from)
        try:
            found = [take_weights(network, weights, num_outputs) for network in networks]
        except UserError as error:
            raise UserError(f"init_from {config.init_from!r}: {error}") from None
        said.append(_in_words(config.init_from, found[0]))
    if config.freeze:
        said.append(f"frozen: {some(map(own_name, freeze(model, config.freeze)), 4)}")
    return said


def _in_words(path: str, found: Taken) -> str:
    left = {
        "fresh, for another number of outputs": found.replaced,
        "fresh, since the file has none": found.fresh,
        "not taken, since the model has no place for them": found.unused,
    }
    rest = "".join(f"; {what}: {some(names, 4)}" for what, names in left.items() if names)
    with Path(path).open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()[:12]
    return f"weights: {len(found.taken)} tensors of {Path(path).name} (sha256 {digest}){rest}"
