"""Parameters that play no part in the training loss."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from crossreg.core.calling import call
from crossreg.core.modules import train_mode, unwrap
from crossreg.core.random import forked_rng
from crossreg.losses import Loss
from crossreg.regularizers.penalties import training_loss

__all__ = ["unused_parameters"]


def unused_parameters(model: nn.Module, loss: Loss, x: Any, y: Tensor) -> list[str]:
    """Return the names of parameters that require gradients and that the training loss does not depend on.

    Args:
        model: the model, wrapped or not; its mode, statistics and gradients stay as they are, and so do the random
            streams.
        loss: see `crossreg.losses`.
        x: a batch of inputs; two of its rows are used, of an ensemble two a member.
        y: its targets.
    """
    inner = unwrap(model)
    named = {name: one for name, one in inner.named_parameters() if one.requires_grad}
    rows = 2 * getattr(inner, "shares", 1)
    buffers = [(buffer, buffer.clone()) for buffer in inner.buffers()]
    modes = [(module, module.training) for module in inner.modules()]
    try:
        with forked_rng(y.device):
            train_mode(inner)
            value = training_loss(inner, loss, call(inner, x[:rows]), y[:rows])
            found = torch.autograd.grad(value, list(named.values()), allow_unused=True) if named else ()
    finally:
        for module, training in modes:
            module.training = training
        with torch.no_grad():
            for buffer, before in buffers:
                buffer.copy_(before)
    return [name for name, gradient in zip(named, found, strict=True) if gradient is None]
