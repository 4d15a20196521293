"""What can be learned beside noise, by name: for configuration files and command lines."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping

from torch import nn

from crossreg.core.errors import UserError, nearest
from crossreg.regularizers.augmentation import KINDS, learn_augmentation, remove_augmentation
from crossreg.regularizers.penalties import L1, L2, Term, remove_terms, penalize
from crossreg.regularizers.targets import LabelSmoothing, LossTemperature

__all__ = ["AUGMENTATIONS", "STARTS", "check_names", "regularize", "strip"]

_TERMS: dict[str, tuple[Callable[[float], Term], float]] = {
    "l2": (L2, 1e-4),
    "l1": (L1, 1e-5),
    "label_smoothing": (LabelSmoothing, 0.05),
    "loss_temperature": (LossTemperature, 1.0),
}
_KINDS = {("input_noise" if kind == "noise" else kind): kind for kind in KINDS}

STARTS: dict[str, float] = {
    **{name: start for name, (_, start) in _TERMS.items()},
    **{name: KINDS[kind] for name, kind in _KINDS.items()},
}
"""Every name, and the value it starts at where none is given. All act on training alone."""

AUGMENTATIONS = frozenset(_KINDS)
"""Those that change training images."""


def check_names(names: Iterable[str]) -> None:
    """Find a name that is none.

    Raises:
        UserError: it is not in `STARTS`.
    """
    for name in names:
        if name not in STARTS:
            raise UserError(f"cannot learn {name!r}{nearest(name, STARTS)}; allowed are {', '.join(STARTS)}")


def regularize(model: nn.Module, starts: Mapping[str, float]) -> nn.Module:
    """Give a model regularizers to be learned, in place.

    Args:
        model: not wrapped yet.
        starts: the value each starts at, by a name of `STARTS`; see `L2`, `L1`, `LabelSmoothing`, `LossTemperature`
            and `learn_augmentation`.

    Returns:
        The same model.

    Raises:
        UserError: an unknown name, or a value out of range.
    """
    check_names(starts)
    for name, start in starts.items():
        if name in _TERMS:
            penalize(model, _TERMS[name][0](start))
    if kinds := {_KINDS[name]: start for name, start in starts.items() if name in _KINDS}:
        learn_augmentation(model, kinds)
    return model


def strip(model: nn.Module) -> nn.Module:
    """Take what `regularize` gave a model out again, in place: it has no part in predictions."""
    remove_terms(model)
    remove_augmentation(model)
    return model
