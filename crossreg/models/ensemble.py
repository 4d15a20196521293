"""Several networks as one model: trained side by side on the same batches, averaged when they predict."""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Literal

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError

__all__ = ["Ensemble"]


class Ensemble(nn.Module):
    """M networks of one kind that differ in their first weights and in what they draw.

    In training mode every member answers for itself, so each is trained as it would be alone; a loss of their average
    would let them make up for one another. In evaluation mode the average of their predictions is the answer, on the
    scale of logits.

    Args:
        members: networks from `[B, ...]` to `[B, C]` or `[B, outputs]`, at least one.
        task: "classification" averages probabilities, "regression" the outputs.

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

    def forward(self, x: Tensor) -> Tensor:
        """Return the members' outputs one after another `[M * B, ...]` in training mode, else their average `[B, ...]`.

        Averaged probabilities are returned as their logarithm, whose softmax they are.
        """
        outputs = [member(x) for member in self.members]
        if self.training:
            return _as_if_alone(torch.cat(outputs), len(outputs))
        if self.task == "regression":
            return torch.stack(outputs).mean(0)
        return torch.logsumexp(torch.stack(outputs).log_softmax(2), dim=0) - math.log(len(outputs))

    def training_targets(self, y: Tensor) -> Tensor:
        """Return the targets of the output in training mode: those of the batch, once a member."""
        return y.repeat(len(self.members), *[1] * (y.ndim - 1))


def _as_if_alone(output: Tensor, members: int) -> Tensor:
    """Undo that a mean over M members gives each of them an M-th of its gradient; the values stay."""
    return output + (members - 1) * (output - output.detach()) if output.requires_grad else output
