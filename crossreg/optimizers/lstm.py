"""An update rule with a memory that is learned too: two layers of LSTM, run for every coordinate by itself."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from crossreg.optimizers.layout import Layout
from crossreg.optimizers.rule import UpdateRule, Weights, linear

__all__ = ["LSTMRule", "cell", "log_and_sign"]

_UNITS, _LAYERS = 20, 2
_RANGE = 5.0


def log_and_sign(gradient: Tensor, reach: float = _RANGE) -> Tensor:
    """Return `[2, *, P]`: size and direction of `gradient` `[*, P]`, in numbers that a network can take.

    `(log|g| / k, sign g)` where `|g| >= exp(-k)`, else `(-1, exp(k) g)`, with k = `reach`.

    Source: Andrychowicz et al. 2016, arXiv:1606.04474, appendix A; k = 5 as in Open-L2O (arXiv:2103.12828).
    """
    size = gradient.abs().clamp(min=math.exp(-reach))
    return torch.stack([size.log() / reach, (gradient * math.exp(reach)).clamp(-1, 1)])


def cell(
    x: Tensor, hidden: Tensor, carried: Tensor, inward: Tensor, across: Tensor, bias: Tensor
) -> tuple[Tensor, Tensor]:
    """Return the hidden and the cell state of an LSTM after a step, for many coordinates at once.

    Args:
        x: `[inputs, ...]`.
        hidden: `[units, ...]`.
        carried: the cell state, `[units, ...]`.
        inward: `[4 units, inputs]`; gates in the order of `torch.nn.LSTM`: input, forget, cell, output.
        across: `[4 units, units]`.
        bias: `[4 units]`.

    Source: Hochreiter and Schmidhuber 1997, with forget gates; the equations of `torch.nn.LSTM`.
    """
    gates = linear(inward, x) + linear(across, hidden) + bias.reshape(-1, *(1,) * (x.ndim - 1))
    enter, forget, new, leave = gates.chunk(4)
    carried = forget.sigmoid() * carried + enter.sigmoid() * new.tanh()
    return leave.sigmoid() * carried.tanh(), carried


class LSTMRule(UpdateRule):
    """The coordinate-wise LSTM of 2 x 20 units, its input the gradient's logarithm and sign.

    It sees no other coordinate, and its update is neither odd nor normalized: its size is learned.

    Source: Andrychowicz et al. 2016, arXiv:1606.04474; sizes as in the nearest public code (Open-L2O, L2O-DM), for want
    of those of arXiv:2510.08968, which are not public. Its output scale .01 is the learning rate here.
    """

    name = "lstm"
    features = 1
    memory = 2 * _LAYERS * _UNITS
    lr = 1e-2

    def initial(self, generator: torch.Generator) -> dict[str, Tensor]:
        """Return weights to start meta-training from, drawn as `torch.nn.LSTM` and `torch.nn.Linear` draw them."""
        bound = _UNITS**-0.5

        def uniform(*shape: int) -> Tensor:
            return bound * (2 * torch.rand(shape, generator=generator) - 1)

        weights: dict[str, Tensor] = {}
        for layer, inputs in enumerate((2, _UNITS)):
            weights |= {
                f"inward{layer}": uniform(4 * _UNITS, inputs),
                f"across{layer}": uniform(4 * _UNITS, _UNITS),
                f"bias{layer}": uniform(4 * _UNITS),
            }
        return {**weights, "out": uniform(_UNITS), "out_bias": torch.zeros(())}

    def update(
        self, weights: Weights, memory: Tensor, gradient: Tensor, theta: Tensor, step: Tensor, layout: Layout
    ) -> tuple[Tensor, Tensor]:
        """Return a direction and what is kept, see `UpdateRule.update`."""
        states = memory.split(_UNITS)
        x, kept = log_and_sign(gradient), []
        for layer in range(_LAYERS):
            names = (f"inward{layer}", f"across{layer}", f"bias{layer}")
            x, carried = cell(x, *states[2 * layer : 2 * layer + 2], *(weights[name] for name in names))
            kept += [x, carried]
        return linear(weights["out"][None], x)[0] + weights["out_bias"], torch.cat(kept)
