"""Several networks as one model: each trained on its share of every batch, averaged when they predict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """M networks of one kind that differ in their first weights, in the rows they see and in what they draw.

    In training mode a batch is dealt out among the members, so each takes a step of its own on rows of its own, as it
    would alone; a loss of their average would let them make up for one another. In evaluation mode the average of
    their predictions is the answer, on the scale of logits.

    Args:
        members: networks from `[B, ...]` to `[B, C]` or `[B, outputs]`, at least one.
        task: "classification" averages probabilities, "regression" the outputs.

    Attributes:
        shares: into how many parts a batch is dealt out in training mode.

    Raises:
        UserError: no member.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """

    def __init__(self, members: Iterable[nn.Module], task: Literal["classification", "regression"]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise UserError("an ensemble has at least one member")
        self.task = task
        self.shares = len(self.members)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, ...]`: in training mode one member's output a row, else the members' average of every row.

        Averaged probabilities are returned as their logarithm, whose softmax they are.
        """
        if self.training:
            parts = x.tensor_split(len(self.members))
            outputs = [member(part) for member, part in zip(self.members, parts, strict=True) if len(part)]
            return _as_if_alone(torch.cat(outputs), len(self.members))
        outputs = [member(x) for member in self.members]
        if self.task == "regression":
            return torch.stack(outputs).mean(0)
        return torch.logsumexp(torch.stack(outputs).log_softmax(2), dim=0) - math.log(len(outputs))


def _as_if_alone(output: Tensor, members: int) -> Tensor:
    """Undo that a mean over the rows of M members gives each an M-th of its gradient; the values stay."""
    return output + (members - 1) * (output - output.detach()) if output.requires_grad else output
