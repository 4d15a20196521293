"""How batches reach a model, and which of its outputs counts."""

from __future__ import annotations

from collections import namedtuple
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from crossreg.core.calling import call, inputs_and_target, main_output
from crossreg.core.errors import UserError

X, MASK, Y = torch.ones(2, 3), torch.zeros(2, 3), torch.tensor([0, 1])


class Masked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor) -> Tensor:
        return x + 2 * mask


class MaybeMasked(nn.Module):
    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        return x if mask is None else x + 2 * mask


class OfAll(nn.Module):
    def forward(self, batch: Any) -> Tensor:
        x, mask = batch.values() if isinstance(batch, dict) else batch
        out: Tensor = x + 3 * mask
        return out


@pytest.mark.parametrize(
    ("model", "batch", "value"),
    [
        (Masked(), (X, MASK + 1, Y), 3.0),
        (MaybeMasked(), (X, MASK + 1, Y), 3.0),
        (MaybeMasked(), [X, Y], 1.0),
        (Masked(), ((X, MASK + 1), Y), 3.0),
        (OfAll(), ((X, MASK + 1), Y), 4.0),
        (Masked(), {"mask": MASK + 1, "labels": Y, "x": X}, 3.0),
        (OfAll(), {"x": X, "m": MASK + 1, "y": Y}, 4.0),
        (Masked(), ({"mask": MASK + 1, "x": X}, Y), 3.0),
    ],
)
def test_batches_as_people_have_them(model: nn.Module, batch: Any, value: float) -> None:
    inputs, target = inputs_and_target(batch)
    assert target is Y
    assert (call(model, inputs) == value).all()


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ({"x": X, "z": Y}, "keys x, z, none of which may be the target; call it one of labels, label"),
        ({"y": X, "label": Y}, "keys y, label, several of which"),
        ((X,), r"a batch is a tuple of 1; it must be \(inputs, target\)"),
        (X, "a batch is a Tensor; it must be"),
        ((X, [0, 1]), "the target of a batch is a list; it must be a tensor"),
    ],
)
def test_other_batches_are_refused(batch: Any, message: str) -> None:
    with pytest.raises(UserError, match=message):
        inputs_and_target(batch)


def test_the_main_output() -> None:
    pair = namedtuple("pair", "logits aux")
    for output in (X, (X, MASK), pair(X, MASK), {"logits": X, "loss": MASK}, {"out": X}, SimpleNamespace(logits=X)):
        assert main_output(output) is X
    with pytest.raises(UserError, match="returns a dict with the keys boxes; it must return a tensor, a tuple whose"):
        main_output({"boxes": X})
    with pytest.raises(UserError, match="returns a NoneType"):
        main_output(None)
