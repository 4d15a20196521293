"""Several networks as one model: each trained on its share of every batch, averaged when they predict."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import Literal

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap

__all__ = ["Ensemble", "apart", "of_members"]


class Ensemble(nn.Module):
    """M networks that differ in their first weights, in the rows they see, in what they draw and perhaps in kind.

    In training mode a batch is dealt out among the members, so each takes a step of its own on rows of its own, as it
    would alone; a loss of their average would let them make up for one another. Where the training loss compares them
    (`crossreg.regularizers.between`) all see all rows and answer for themselves. In evaluation mode the average of
    their predictions is the answer, on the scale of logits.

    Args:
        members: networks from `[B, ...]` to `[B, C]` or `[B, outputs]`, at least one.
        task: "classification" averages probabilities, "regression" the outputs.

    Attributes:
        together: in training mode members see the same rows, and answer `[M, B, ...]`.
        apart: in evaluation mode members answer for themselves now, `[M, B, ...]`; see the function.

    Raises:
        UserError: no member.

    Source: Lakshminarayanan et al. 2017, arXiv:1612.01474.
    """

    def __init__(self, members: Iterable[nn.Module], task: Literal["classification", "regression"]) -> None:
        super().__init__()
        self.members = nn.ModuleList(members)
        if not self.members:
            raise UserError("an ensemble has at least one member")
        self._begin(len(self.members), task)

    def _begin(self, count: int, task: Literal["classification", "regression"]) -> None:
        self.count, self.task = count, task
        self.together = self.apart = False

    @property
    def shares(self) -> int:
        """Into how many parts a batch is dealt out in training mode."""
        return 1 if self.together else self.count

    def forward(self, x: Tensor) -> Tensor:
        """Return `[B, ...]`: in training mode one member's output a row, else the members' average of every row."""
        if self.training:
            outputs = self.each(x) if self.together else self.dealt(x)
            return _as_if_alone(outputs, self.count)
        outputs = self.each(x)
        return outputs if self.apart else self.average(outputs)

    def each(self, x: Tensor) -> Tensor:
        """Return every member's output of every row, `[M, B, ...]`."""
        return torch.stack([member(x) for member in self.members])

    def dealt(self, x: Tensor) -> Tensor:
        """Return one member's output of a row, `[B, ...]`: the first rows are the first member's."""
        parts = x.tensor_split(self.count)
        return torch.cat([member(part) for member, part in zip(self.members, parts, strict=True) if len(part)])

    def alone(self, member: int) -> nn.Module:
        """Return one member as a network by itself."""
        return self.members[member]

    def average(self, outputs: Tensor) -> Tensor:
        """Return the average `[B, ...]` of the members' outputs `[M, B, ...]`.

        Averaged probabilities are returned as their logarithm, whose softmax they are.
        """
        if self.task == "regression":
            return outputs.mean(0)
        return torch.logsumexp(outputs.log_softmax(2), dim=0) - math.log(len(outputs))


@contextmanager
def apart(model: nn.Module) -> Iterator[Ensemble | None]:
    """Let the members of an ensemble answer for themselves in evaluation mode; yields it, or None for another model."""
    inner = unwrap(model)
    if not isinstance(inner, Ensemble):
        yield None
        return
    inner.apart = True
    try:
        yield inner
    finally:
        inner.apart = False


def of_members(model: nn.Module, output: Tensor) -> Tensor | None:
    """Return what members answered for themselves in training, `[M, B, ...]`; None where `output` is a row's answer."""
    inner = unwrap(model)
    return output if isinstance(inner, Ensemble) and inner.together and inner.training else None


def _as_if_alone(output: Tensor, members: int) -> Tensor:
    """Undo that a mean over the rows of M members gives each an M-th of its gradient; the values stay."""
    return output + (members - 1) * (output - output.detach()) if output.requires_grad else output
