"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict

import torch
from torch import Tensor, nn

from crossreg.core.errors import UserError, nearest
from crossreg.models.checks import flag, positive, probability
from crossreg.models.init import kaiming_

__all__ = ["LinearSkip", "Skipping", "mlp"]

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def mlp(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    hidden: int = 512,
    depth: int = 3,
    norm: str = "batch",
    dropout: float = 0.0,
    linear_skip: bool = False,
) -> nn.Module:
    """Multilayer perceptron for inputs of any shape: Linear, BatchNorm, ReLU.

    Args:
        input_shape: Shape of one example; flattened.
        num_outputs: Width of the last layer.
        hidden: Width of every hidden layer.
        depth: Number of hidden layers.
        norm: `"batch"` (BatchNorm1d) or `"layer"` (LayerNorm).
        dropout: Probability of dropping a unit after every ReLU; 0 builds no dropout layers.
        linear_skip: Adds a linear function of the inputs to the output; see `LinearSkip`. The last layer starts at
            zero then, so that training starts from that function.

    Returns:
        A model from `[N, *input_shape]` to `[N, num_outputs]`.

    Raises:
        UserError: An option is out of range.
    """
    positive("hidden of 'mlp'", hidden)
    positive("depth of 'mlp'", depth)
    probability("dropout of 'mlp'", dropout)
    flag("linear_skip of 'mlp'", linear_skip)
    if norm not in NORMS:
        raise UserError(f"norm of 'mlp' is {norm!r}{nearest(str(norm), NORMS)}; allowed are {', '.join(NORMS)}")
    layers: OrderedDict[str, nn.Module] = OrderedDict(flatten=nn.Flatten())
    width = math.prod(input_shape)
    for i in range(1, depth + 1):
        # the normalization's own shift does a bias's work
        layers[f"linear{i}"] = nn.Linear(width, hidden, bias=False)
        layers[f"norm{i}"] = NORMS[norm](hidden)
        layers[f"relu{i}"] = nn.ReLU()
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        width = hidden
    output = nn.Linear(width, num_outputs)
    layers["output"] = output
    network = nn.Sequential(layers)
    kaiming_(network, output=output)
    if not linear_skip:
        return network
    nn.init.zeros_(output.weight)
    nn.init.zeros_(output.bias)
    return Skipping(network, LinearSkip(math.prod(input_shape), num_outputs))


class LinearSkip(nn.Linear):
    """A linear function of all inputs beside a network, under autocast too in the type of its weights; starts at zero.

    Source: the wide part of Cheng et al. 2016, Wide & Deep Learning, arXiv:1606.07792.
    """

    def reset_parameters(self) -> None:
        """Set weight and bias to zero."""
        nn.init.zeros_(self.weight)
        nn.init.zeros_(self.bias)

    def forward(self, x: Tensor) -> Tensor:
        """Return `[N, outputs]` of x `[N, ...]`."""
        x, device = x.flatten(1).to(self.weight.dtype), x.device.type
        if not torch.amp.is_autocast_available(device):
            return super().forward(x)
        # where a linear function is nearly all there is, three digits of it are not enough
        with torch.autocast(device, enabled=False):
            return super().forward(x)


class Skipping(nn.Sequential):
    """Layers one after the other and a linear function of their input, added up; the layers keep their names.

    Args:
        layers: from `[N, ...]` to `[N, outputs]`.
        skip: the linear function.
    """

    def __init__(self, layers: nn.Sequential, skip: LinearSkip) -> None:
        super().__init__(OrderedDict(layers.named_children()))
        self.skip = skip

    def forward(self, x: Tensor) -> Tensor:
        """Return `[N, outputs]` of x `[N, ...]`."""
        out = x
        for layer in self:
            out = out if layer is self.skip else layer(out)
        return out + self.skip(x)
