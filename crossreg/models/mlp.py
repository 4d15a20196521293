"""The multilayer perceptron."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import nn

from crossreg.core.errors import UserError, nearest
from crossreg.models.checks import positive, probability
from crossreg.models.init import kaiming_

__all__ = ["mlp"]

NORMS: dict[str, type[nn.Module]] = {"batch": nn.BatchNorm1d, "layer": nn.LayerNorm}


def mlp(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    hidden: int = 512,
    depth: int = 3,
    norm: str = "batch",
    dropout: float = 0.0,
) -> nn.Module:
    """Multilayer perceptron for inputs of any shape: Linear, BatchNorm, ReLU.

    Args:
        input_shape: Shape of one example; flattened.
        num_outputs: Width of the last layer.
        hidden: Width of every hidden layer.
        depth: Number of hidden layers.
        norm: `"batch"` (BatchNorm1d) or `"layer"` (LayerNorm).
        dropout: Probability of dropping a unit after every ReLU; 0 builds no dropout layers.

    Returns:
        A model from `[N, *input_shape]` to `[N, num_outputs]`.

    Raises:
        UserError: An option is out of range.
    """
    positive("hidden of 'mlp'", hidden)
    positive("depth of 'mlp'", depth)
    probability("dropout of 'mlp'", dropout)
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
    return kaiming_(nn.Sequential(layers), output=output)
