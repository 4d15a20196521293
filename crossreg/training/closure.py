"""The theta step of an optimizer that evaluates the gradient more than once, as SAM and L-BFGS do."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from crossreg.core.random import generator_states, set_generator_states

__all__ = ["step_with_closure"]


def step_with_closure(
    optimizer: torch.optim.Optimizer,
    model: nn.Module,
    device: torch.device,
    gradient: Callable[[], tuple[Any, Tensor]],
) -> tuple[tuple[Any, Tensor], int]:
    """Evaluate the gradient, then let the optimizer step with a closure that evaluates it again where theta is then.

    All passes are of one function of theta. Noise and dropout are drawn the same each time, because the difference
    between two gradients is to come from moving theta: SAM climbs along the gradient of one draw, and with another
    draw in its second pass it would measure that draw's own slope in place of the sharpness of the first. What the
    model remembers of its inputs (running statistics of BatchNorm) is that of the first pass, at theta itself; the
    weights of the others are never kept. Generators and buffers end as an ordinary step would leave them.

    Args:
        optimizer: of theta; its `step` takes a closure and may call it any number of times.
        model: whose buffers the passes must not touch twice.
        device: where the model draws.
        gradient: one forward and backward pass; returns the output and the loss.

    Returns:
        What the first pass returned, and the number of passes.
    """
    states = generator_states(device)
    first = gradient()
    buffers = list(model.buffers())
    kept = [buffer.clone() for buffer in buffers]
    passes = 1

    def closure() -> Tensor:
        nonlocal passes
        passes += 1
        set_generator_states(device, states)
        optimizer.zero_grad(set_to_none=True)
        with torch.enable_grad():  # optimizers step without gradients, and not all turn them on again
            return gradient()[1].detach()

    optimizer.step(closure)  # type: ignore[arg-type]  # its annotation wants a float, its own code a tensor
    for buffer, value in zip(buffers, kept, strict=True):
        buffer.copy_(value)
    return first, passes
