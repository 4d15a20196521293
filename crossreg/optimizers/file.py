"""A meta-trained update rule as one file: safetensors, with a description in JSON in its header."""

from __future__ import annotations

import hashlib
import json
import math
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from functools import cached_property
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from crossreg.core.errors import UserError, nearest
from crossreg.core.paths import local_path, written_whole
from crossreg.optimizers.lstm import LSTMRule
from crossreg.optimizers.mlp import MLPRule
from crossreg.optimizers.rule import UpdateRule

__all__ = ["RULES", "SHIPPED", "About", "LearnedRule", "load_rule", "save_rule", "update_rule"]

RULES: dict[str, UpdateRule] = {rule.name: rule for rule in (MLPRule(), LSTMRule())}
"""Every form of update rule by its name."""
SHIPPED = Path(__file__).with_name("learned.safetensors")
"""The meta-trained rule that comes with the package; `docs/meta_train.md` says how it was made."""

_FORMAT = "crossreg learned optimizer 1"
_MOST_BYTES = 1_000_000


@dataclass(frozen=True)
class About:
    """Where a rule comes from.

    Attributes:
        horizon: most steps of a training that it was meta-trained on.
        lr: learning rate it was meta-trained with, and takes where none is given.
        meta_loss: what meta-training lowered.
        tasks: what it was trained on.
        seed: of meta-training.
        iterations: of meta-training.
        version: of crossreg.
        commit: of the sources; empty where they were no checkout.
    """

    horizon: int
    lr: float
    meta_loss: str
    tasks: tuple[str, ...] = ()
    seed: int = 0
    iterations: int = 0
    version: str = ""
    commit: str = ""

    def __post_init__(self) -> None:
        for one in fields(self):
            value = getattr(self, one.name)
            allowed = {"int": int, "float": int | float, "str": str}.get(str(one.type))
            if allowed is not None and (not isinstance(value, allowed) or isinstance(value, bool)):
                raise UserError(f"{one.name} is {value!r}, which is no {one.type}")
        if self.horizon < 1:
            raise UserError(f"horizon is {self.horizon}; it must be at least 1 step")
        if not 0 < self.lr < math.inf:
            raise UserError(f"lr is {self.lr}; it must be positive")
        object.__setattr__(self, "tasks", tuple(str(task) for task in self.tasks))


@dataclass(frozen=True, eq=False)
class LearnedRule:
    """An update rule with its weights.

    Attributes:
        rule: its form.
        weights: its meta-parameters by name, float32.
        about: where it comes from.
    """

    rule: UpdateRule
    weights: Mapping[str, Tensor]
    about: About

    @cached_property
    def digest(self) -> str:
        """Sixteen hexadecimal digits that no other rule or weights have."""
        found = hashlib.sha256(f"{self.rule.name} {self.rule.features}".encode())
        for name, tensor in sorted(self.weights.items()):
            found.update(name.encode() + tensor.detach().cpu().contiguous().numpy().tobytes())
        return found.hexdigest()[:16]


def update_rule(name: str) -> UpdateRule:
    """Return a form of update rule by its name.

    Raises:
        UserError: there is none of this name.
    """
    if name not in RULES:
        raise UserError(f"no update rule is called {name!r}{nearest(name, RULES)}; there are {', '.join(RULES)}")
    return RULES[name]


def save_rule(learned: LearnedRule, path: str | os.PathLike[str]) -> Path:
    """Write a rule, complete or not at all; needs the `safetensors` package.

    Args:
        learned: what to write.
        path: the file; its folder is made.

    Returns:
        The path.
    """
    from safetensors.torch import save

    path = local_path(path, "optimizer file")
    described = {"rule": learned.rule.name, "features": learned.rule.features, **asdict(learned.about)}
    tensors = {name: tensor.detach().cpu().clone().contiguous() for name, tensor in learned.weights.items()}
    content = save(tensors, {"format": _FORMAT, "about": json.dumps(described)})
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with written_whole(path) as file:
            file.write(content)
        path.chmod(0o644)  # to be shared, where a temporary file is its owner's alone
    except OSError as error:
        raise UserError(f"cannot write the optimizer file {str(path)!r}: {error.strerror or error}") from error
    return path


def load_rule(path: str | os.PathLike[str] = SHIPPED) -> LearnedRule:
    """Read a rule, without running code; needs the `safetensors` package.

    Args:
        path: a file of `save_rule`; the one that is shipped where none is given.

    Raises:
        UserError: no such file, one that is truncated or another's, or made with features of another version.
    """
    path = local_path(path, "optimizer file")
    if not path.is_file():
        raise UserError(f"there is no optimizer file at {str(path)!r}; `crossreg meta-train` makes one")
    if path.stat().st_size > _MOST_BYTES:
        raise UserError(
            f"{str(path)!r} is {path.stat().st_size:,} bytes long, and a learned optimizer has a few thousand"
        )
    try:
        tensors, described = _read(path)
    except UserError as error:
        raise UserError(f"{str(path)!r} holds no learned optimizer that can be used: {error}") from None
    # safetensors and json raise their own
    except Exception as error:
        reason = " ".join(str(error).split())[:200] or type(error).__name__
        raise UserError(
            f"{str(path)!r} is no complete optimizer file (truncated, or another file): {reason}"
        ) from error
    rule = update_rule(described.pop("rule"))
    return LearnedRule(rule, tensors, About(**described))


def _read(path: Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    from safetensors import safe_open

    with safe_open(path, "pt") as file:
        header = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118  it is no mapping
    if header.get("format") != _FORMAT:
        raise UserError(f"its format is {header.get('format')!r}, and this version of crossreg reads {_FORMAT!r}")
    described = json.loads(header["about"])
    rule = update_rule(described["rule"])
    if (version := described.pop("features", None)) != rule.features:
        raise UserError(f"its features are of version {version!r}, and this version of crossreg has {rule.features}")
    expected = rule.initial(torch.Generator())
    for name in sorted({*expected, *tensors}):
        shape = tuple(expected[name].shape) if name in expected else None
        found = (tuple(tensors[name].shape), tensors[name].dtype) if name in tensors else None
        if found is None or found != (shape, torch.float32):
            given = "missing" if found is None else f"{found[1]} {found[0]}"
            needed = "no such weight" if shape is None else f"torch.float32 {shape}"
            raise UserError(f"weight {name!r} is {given}; update rule {rule.name!r} needs {needed}")
        if not bool(tensors[name].isfinite().all()):
            raise UserError(f"weight {name!r} holds NaN or infinity")
    known = {one.name for one in fields(About)}
    if unknown := sorted(set(described) - known - {"rule"}):
        raise UserError(f"it says {unknown[0]!r} of itself, which this version of crossreg does not know")
    About(**{name: value for name, value in described.items() if name != "rule"})
    return tensors, described
