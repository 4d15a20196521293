"""Modules of a model: taking wrappers off, choosing by name, attaching beside the layers, hooks."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable
from fnmatch import fnmatchcase
from typing import Any

import torch
from torch import nn

__all__ = [
    "AttachedModules",
    "Where",
    "keep_evaluation_modes",
    "own_name",
    "remove_hook",
    "rho_device_and_dtype",
    "selects",
    "train_mode",
    "unwrap",
]

_MEMBER = re.compile(r"^(members\.\d+|body)\.")  # of `Ensemble` and `SharedMLP`

Where = str | Iterable[str] | Callable[[str, Any], bool]
"""A choice of layers or weights by name: a shell-style pattern, several, or a predicate `(name, module) -> bool`."""


class AttachedModules(nn.ModuleList):
    """Holds modules that a model was given beside its layers."""

    def forward(self, x: Any) -> Any:
        """Return what comes: the last module of an `nn.Sequential` is called like the others."""
        return x


def unwrap(model: nn.Module) -> nn.Module:
    """Return the user's module inside `DistributedDataParallel` and `torch.compile` wrappers."""
    while True:
        inner = getattr(model, "_orig_mod", None)
        if inner is None and isinstance(model, nn.parallel.DistributedDataParallel | nn.DataParallel):
            inner = model.module
        if inner is None:
            return model
        model = inner


def keep_evaluation_modes(model: nn.Module, never: type[nn.Module] | tuple[type[nn.Module], ...] = ()) -> list[str]:
    """Note which modules of a model in training mode are in evaluation mode, and let `train_mode` leave them there.

    So statistics of a frozen BatchNorm stay what they are. A model that is in evaluation mode itself holds none.

    Args:
        model: wrapped or not.
        never: classes of modules that are to train all the same.

    Returns:
        The names of these modules.
    """
    inner = unwrap(model)
    kept = [name for name, one in inner.named_modules() if not (one.training or isinstance(one, never))]
    inner.kept_in_evaluation = kept if inner.training else []  # type: ignore[assignment]
    return list(inner.kept_in_evaluation)  # type: ignore[arg-type]


def train_mode(model: nn.Module) -> None:
    """Put a model into training mode, but for the modules that `keep_evaluation_modes` noted."""
    model.train()
    inner = unwrap(model)
    for name in getattr(inner, "kept_in_evaluation", ()):
        inner.get_submodule(name).training = False


def own_name(name: str) -> str:
    """Return a name within a network of its own, for one within an ensemble."""
    return _MEMBER.sub("", name)


def selects(where: Where | None, name: str, module: Any) -> bool:
    """Say whether a choice takes this name; None takes all."""
    if where is None:
        return True
    if callable(where):
        return bool(where(name, module))
    patterns = [where] if isinstance(where, str) else list(where)
    names = {name, own_name(name)}  # a pattern is for every network of an ensemble
    return any(fnmatchcase(one, pattern) for pattern in patterns for one in names)


def rho_device_and_dtype(module: nn.Module, model: nn.Module) -> tuple[torch.device, torch.dtype]:
    """Return where and in which precision rho lives: beside the weights, in float64 with them, else in float32."""
    tensors = (*module.parameters(), *module.buffers(), *model.parameters())
    tensor = next((t for t in tensors if t.is_floating_point()), torch.empty(()))
    return tensor.device, torch.float64 if tensor.dtype == torch.float64 else torch.float32


def remove_hook(hooks: dict[int, Any], function: Callable[..., Any]) -> None:
    """Take a function out of a module's hooks of one kind."""
    for key, hook in list(hooks.items()):
        if getattr(hook, "hook", hook) is function:
            del hooks[key]
