"""Fine-tuning: weights from a file, and weights that stay as they are."""

from __future__ import annotations

import os
import pickle
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError, nearest
from crossreg.core.modules import selects

__all__ = ["Taken", "freeze", "read_weights", "take_weights"]

_INSIDE = ("state_dict", "model_state_dict", "model")
_MEMBER = re.compile(r"^members\.\d+\.")
_PREFIX = re.compile(r"^(module|_orig_mod|model)\.")


@dataclass(frozen=True)
class Taken:
    """What came of weights from a file, by name within one network.

    Attributes:
        taken: the model has them now.
        replaced: of the last layer, for another number of outputs: the model keeps fresh ones.
        fresh: the file has none for them.
        unused: the model has no place for them.
    """

    taken: list[str]
    replaced: list[str]
    fresh: list[str]
    unused: list[str]


def read_weights(path: str | os.PathLike[str]) -> dict[str, Tensor]:
    """Return the tensors of a file by name: safetensors, or a state dict as `torch.save` writes it.

    A state dict may lie within another dictionary under "state_dict", "model_state_dict" or "model", and its names may
    begin with what `DataParallel`, `torch.compile` or Lightning put there, which is taken off. Nothing is unpickled but
    tensors and plain values (`weights_only`).

    Raises:
        UserError: there is no such file, or it holds no weights.
    """
    file = Path(path)
    if not file.is_file():
        raise UserError(f"there is no file {str(file)!r} to take weights from")
    try:
        if file.suffix == ".safetensors":
            from safetensors.torch import load_file

            content: Any = load_file(file)
        else:
            content = torch.load(file, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise UserError(
            f"{file} holds more than weights, which could run anything when it is read; save model.state_dict(), or "
            f"use safetensors ({str(error).splitlines()[0]})"
        ) from None
    except Exception as error:  # a broken file may fail anywhere
        raise UserError(
            f"{file} cannot be read as {'safetensors' if file.suffix == '.safetensors' else 'a state dict'}: {error}"
        ) from None
    while isinstance(content, Mapping) and (
        key := next((k for k in _INSIDE if isinstance(content.get(k), Mapping)), "")
    ):
        content = content[key]
    weights = content if isinstance(content, Mapping) else {}
    weights = {str(name): value for name, value in weights.items() if isinstance(value, Tensor)}
    if not weights:
        raise UserError(f"{file} holds no weights; it must be a state dict: names and tensors")
    while all(_PREFIX.match(name) for name in weights):
        weights = {_PREFIX.sub("", name): value for name, value in weights.items()}
    return weights


def take_weights(model: nn.Module, weights: Mapping[str, Tensor], num_outputs: int) -> Taken:
    """Copy weights and statistics into a network, in place.

    Args:
        model: one network, with whatever regularizes it.
        weights: see `read_weights`.
        num_outputs: of the model; a tensor that differs from the model's in this size alone is of the last layer, and
            the model keeps its own.

    Raises:
        UserError: none fits, or one has another shape elsewhere.
    """
    own = {name: value for name, value in model.state_dict().items() if not name.endswith(".rho")}
    same = {name for name in own if name in weights and weights[name].shape == own[name].shape}
    others = [name for name in own if name in weights and name not in same]
    head = {name for name in others if _is_head(own[name], weights[name], num_outputs)}
    if wrong := [name for name in others if name not in head]:
        shown = "; ".join(f"{name} is {tuple(weights[name].shape)}, not {tuple(own[name].shape)}" for name in wrong[:3])
        raise UserError(
            f"{len(wrong)} weights have another shape than the model's: {shown}; give the model they are of"
        )
    if not same:
        raise UserError(
            f"no weight fits: the file has {', '.join(list(weights)[:3])}, ..., the model {', '.join(list(own)[:3])}"
        )
    with torch.no_grad():
        for name in same:
            own[name].copy_(weights[name])
    return Taken(
        [name for name in own if name in same],
        [name for name in own if name in head],
        [name for name in own if name not in weights],
        [name for name in weights if name not in own],
    )


def _is_head(own: Tensor, other: Tensor, num_outputs: int) -> bool:
    return own.ndim == other.ndim > 0 and own.shape[1:] == other.shape[1:] and len(own) == num_outputs


def freeze(model: nn.Module, patterns: Sequence[str]) -> list[str]:
    """Let weights stay as they are, in place: no gradients, and statistics of their layers do not move either.

    Args:
        model: the model.
        patterns: shell-style, of names of weights ("conv1.weight") or of modules and all below ("layer1", "layer[12]");
            of an ensemble they are for every network.

    Returns:
        The names of the weights.

    Raises:
        UserError: a pattern that fits nothing, or nothing is left to train.
    """
    weights = {name: one for name, one in model.named_parameters() if one.requires_grad}
    chosen: set[str] = set()
    for pattern in patterns:
        fits = {name for name in weights if any(selects(pattern, part, None) for part in (name, *_parents(name)))}
        if not fits:
            tops = list(dict.fromkeys(_alone(name).partition(".")[0] for name in weights))
            raise UserError(
                f"freeze: {pattern!r} fits no weight{nearest(pattern, tops)}; the model has {', '.join(tops)}"
            )
        chosen |= fits
    if len(chosen) == len(weights):
        raise UserError(f"freeze: {', '.join(patterns)} leaves nothing to train; leave at least the last layer free")
    for name in chosen:
        weights[name].requires_grad_(False)
    for module in model.modules():
        own = list(module.parameters(recurse=False))
        if own and not any(one.requires_grad for one in own) and any(True for _ in module.buffers(recurse=False)):
            module.eval()
    return [name for name in weights if name in chosen]


def _parents(name: str) -> list[str]:
    parts = _alone(name).split(".")
    return [".".join(parts[:end]) for end in range(1, len(parts))]


def _alone(name: str) -> str:
    return _MEMBER.sub("", name)
