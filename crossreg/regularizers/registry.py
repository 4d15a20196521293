"""Every regularizer by name, and what all of them have in common: given to a model, read, set, taken out.

This is the one list. Flags, configuration files, search spaces, MLflow's metrics, replays, exports and reports go by
it, so a new regularizer is a file beside this one and a line here.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import torch
from torch import nn

from crossreg.core.errors import UserError, nearest, quoted
from crossreg.core.modules import unwrap
from crossreg.regularizers.augmentation import AUGMENTATIONS
from crossreg.regularizers.base import Hyperparameter, Regularizer, read_all, rho_hyperparameters
from crossreg.regularizers.between import BETWEEN
from crossreg.regularizers.builtin import DROPOUT, WEIGHT_DECAY
from crossreg.regularizers.levels import L1_LEVEL
from crossreg.regularizers.noise import NOISE
from crossreg.regularizers.norms import NORM
from crossreg.regularizers.penalties import L1_PENALTY, L2_PENALTY
from crossreg.regularizers.targets import LABEL_SMOOTHING, LOSS_TEMPERATURE
from crossreg.regularizers.temperature import TEMPERATURE

__all__ = [
    "REGISTRY",
    "attach",
    "description",
    "get_hyperparameters",
    "hyperparameters",
    "regularizer",
    "remove",
    "set_hyperparameters",
]

REGISTRY: dict[str, Regularizer] = {
    entry.name: entry
    for entry in (
        NOISE,
        TEMPERATURE,
        NORM,
        L1_LEVEL,
        L2_PENALTY,
        L1_PENALTY,
        LABEL_SMOOTHING,
        LOSS_TEMPERATURE,
        *AUGMENTATIONS,
        *BETWEEN,
        WEIGHT_DECAY,
        DROPOUT,
    )
}
"""Every regularizer by its name, in the order in which a model is given them."""


def regularizer(name: str) -> Regularizer:
    """Return an entry of the registry.

    Args:
        name: of a regularizer, or of one of its hyperparameters: "noise", "noise/00_norm1".

    Raises:
        UserError: there is none of this name.
    """
    base = name.partition("/")[0]
    if base not in REGISTRY:
        raise UserError(
            f"no regularizer is called {quoted(base)}{nearest(base, REGISTRY)}; there are {', '.join(REGISTRY)}"
        )
    return REGISTRY[base]


def description(name: str) -> Hyperparameter:
    """Return what a hyperparameter is, by its name with or without its part; see `regularizer`."""
    return regularizer(name).hyperparameter


def attach(model: nn.Module, values: Mapping[str, float | None], options: Mapping[str, Any] | None = None) -> nn.Module:
    """Give a model regularizers, in place.

    Args:
        model: not wrapped yet.
        values: where each starts, or stays, by name; None takes the default. A name with a part ("noise/00_norm1")
            says it for that part alone, of a regularizer that is given too.
        options: further arguments by name of the regularizer, see `Regularizer.options`.

    Returns:
        The same model.

    Raises:
        UserError: an unknown name, a value or an option that is not allowed, or a model that has no place for it.
    """
    options = options or {}
    for name, value in values.items():
        entry = regularizer(name)
        if value is not None:
            entry.hyperparameter.check(value)
        entry.check_options(options.get(name, {}))
    for name, entry in REGISTRY.items():
        if name in values:
            entry.attach(model, values[name], **options.get(name, {}))
    if parts := {name: value for name, value in values.items() if "/" in name}:
        found = {name: one for name, one in hyperparameters(model).items() if one.base in values}
        for name, value in parts.items():
            one = _known(found, name)
            if value is not None:
                one.set(value)
    return model


def remove(model: nn.Module, *, keep_exported: bool = False) -> nn.Module:
    """Take regularizers out of a model again, in place; its own weights stay as trained.

    Args:
        model: wrapped or not.
        keep_exported: leave in what predictions need; see `Regularizer.exported`.
    """
    for entry in REGISTRY.values():
        if not (keep_exported and entry.exported):
            entry.remove(unwrap(model))
    return model


def hyperparameters(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> dict[str, Hyperparameter]:
    """Return every hyperparameter of a live training by name: what can be read and set there.

    Args:
        model: wrapped or not.
        optimizer: of theta; without one its weight decay is not among them.
    """
    found = rho_hyperparameters(model)
    for entry in REGISTRY.values():
        for one in entry.find(model, optimizer) if entry.find else ():
            found[one.name] = one
    return found


def get_hyperparameters(
    model: nn.Module, optimizer: torch.optim.Optimizer | None = None, names: Iterable[str] | None = None
) -> dict[str, float]:
    """Return values in natural units by name, e.g. `{"noise/00_norm1": 0.4, "l2": 0.003, "weight_decay": 0.01}`.

    Args:
        model: wrapped or not.
        optimizer: of theta.
        names: of the ones wanted; None takes all.
    """
    found = hyperparameters(model, optimizer)
    return read_all(found if names is None else {name: found[name] for name in names})


def set_hyperparameters(model: nn.Module, optimizer: torch.optim.Optimizer | None, values: Mapping[str, float]) -> None:
    """Set values, in place. Set after a checkpoint was loaded, they win over what was saved.

    Args:
        model: wrapped or not.
        optimizer: of theta.
        values: by name, in natural units.

    Raises:
        UserError: a hyperparameter that this training does not have, or a value out of bounds.
    """
    found = hyperparameters(model, optimizer)
    for name, value in values.items():
        _known(found, name).set(value)


def _known(found: Mapping[str, Hyperparameter], name: str) -> Hyperparameter:
    if name not in found:
        there = ", ".join(found) or "none"
        raise UserError(f"this training has no hyperparameter {name!r}{nearest(name, found)}; it has {there}")
    return found[name]
