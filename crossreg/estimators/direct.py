"""The direct gradient of the paper: d L_reg / d rho with theta held fixed, averaged over noise draws.

    m = 1/K sum_k p_k,   p_k = prediction with noise draw eps_k
    g = sum_k (d p_k / d rho)^T (d L(m) / d m) / K

One graph over K draws needs K times the activations. Here the first pass keeps only what the loss needs of each draw;
`d L / d (draw k)` follows from those alone, and the second pass replays draw k from its seed and back-propagates it
by itself. That is the same gradient by the chain rule, and holds the activations of one draw at a time. The last draw
of the first pass keeps its graph, so K draws cost 2K - 1 forward passes and K backward passes; but what comes before
the noise is the same in all of them, and done once (`crossreg.estimators.sharing`).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager, nullcontext
from typing import Any

import torch
from torch import Tensor, nn

from crossreg.core.calling import call
from crossreg.core.errors import UserError
from crossreg.core.random import forked_rng
from crossreg.estimators.base import Estimator
from crossreg.estimators.sharing import shared_between_passes
from crossreg.losses import Loss
from crossreg.regularizers.noise import Draw, sampling, set_draw
from crossreg.regularizers.temperature import temperature

__all__ = ["Direct"]


class Direct(Estimator):
    """The paper's estimator: cheap, and blind to what rho does to theta.

    Args:
        graphs: draws that keep their graphs in the first pass, at least 1. Each costs about the memory of a training
            step's, and saves a forward pass.

    Raises:
        UserError: fewer than one graph.

    Source: arXiv 2506.19755; equal to `crossreg.reference.rho_gradient`, which keeps one graph.
    """

    def __init__(self, graphs: int = 1) -> None:
        if graphs < 1:
            raise UserError(f"graphs is {graphs}; it must be at least 1")
        self.graphs = graphs

    def passes(self, samples: int) -> tuple[int, int]:
        """Return forward and backward passes of an update."""
        return samples + max(0, samples - self.graphs), samples

    def gradient(
        self,
        model: nn.Module,
        loss: Loss,
        inputs: Any,
        target: Tensor,
        rho: Sequence[nn.Parameter],
        draws: Sequence[Draw],
        scale: float = 1.0,
    ) -> tuple[Tensor, list[Tensor]]:
        """Return the loss of the noise-averaged prediction and its gradient, theta held fixed; see `Estimator`.

        The model runs in evaluation mode with noise on.
        """
        device = target.device

        def piece_of(draw: Draw) -> Tensor:
            set_draw(model, draw, device)
            return loss.per_draw(call(model, inputs), target, temperature(model).to(device))

        shared = shared_between_passes(model, inputs, rho) if len(draws) > 1 else nullcontext()
        with forked_rng(device), sampling(model, learning=True), _only(rho, model), shared:
            with torch.no_grad():
                bare = [piece_of(draw) for draw in draws[: -self.graphs]]
            graphs = [piece_of(draw) for draw in draws[-self.graphs :]]
            pieces = torch.stack([*bare, *(piece.detach() for piece in graphs)]).requires_grad_()
            value = loss.of_draws(pieces, target)
            (cotangents,) = torch.autograd.grad(value, pieces)
            total = [torch.zeros_like(parameter) for parameter in rho]
            for draw, cotangent in zip(reversed(draws), cotangents.flip(0), strict=True):
                # a graph is freed before the next draw is replayed
                piece = graphs.pop() if graphs else piece_of(draw)
                if piece.requires_grad:
                    gradients = torch.autograd.grad(piece, rho, cotangent * scale, allow_unused=True)
                    for accumulated, gradient in zip(total, gradients, strict=True):
                        if gradient is not None:
                            accumulated += gradient
                del piece
        return value.detach(), total


@contextmanager
def _only(rho: Sequence[nn.Parameter], model: nn.Module) -> Iterator[None]:
    """Let gradients reach rho alone: weight gradients are then never computed, nor their activations kept."""
    flags = [(parameter, parameter.requires_grad) for parameter in model.parameters()]
    for parameter, _ in flags:
        parameter.requires_grad_(False)
    for parameter in rho:
        parameter.requires_grad_(True)
    try:
        yield
    finally:
        for parameter, flag in flags:
            parameter.requires_grad_(flag)
