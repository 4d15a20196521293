"""Networks small enough to train thousands of times: what update rules are meta-trained on."""

from __future__ import annotations

import math
from collections.abc import Callable

from torch import nn

from crossreg.core.errors import UserError, nearest
from crossreg.models.init import kaiming_

__all__ = ["NETWORKS", "build_small"]


def _perceptron(
    input_shape: tuple[int, ...], num_outputs: int, hidden: int, activation: Callable[[], nn.Module]
) -> nn.Module:
    width = math.prod(input_shape)
    return nn.Sequential(nn.Flatten(), nn.Linear(width, hidden), activation(), nn.Linear(hidden, num_outputs))


def _mlp_sigmoid(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Twenty sigmoid units, the optimizee of Andrychowicz et al. 2016 (arXiv:1606.04474)."""
    return _perceptron(input_shape, num_outputs, 20, nn.Sigmoid)


def _mlp_relu(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Thirty-two ReLU units."""
    return _perceptron(input_shape, num_outputs, 32, nn.ReLU)


def _mlp_norm(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Two layers of thirty-two, BatchNorm before each ReLU: `crossreg.models.mlp`, small."""
    output = nn.Linear(32, num_outputs)
    layers: list[nn.Module] = [nn.Flatten()]
    for width in (math.prod(input_shape), 32):
        layers += [nn.Linear(width, 32, bias=False), nn.BatchNorm1d(32), nn.ReLU()]
    return kaiming_(nn.Sequential(*layers, output), output=output)


def _cnn(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Convolutions of 8 and 16 channels, BatchNorm before each ReLU, the mean over what is left of the image.

    Raises:
        UserError: inputs that are no images.
    """
    if len(input_shape) != 3:
        raise UserError(f"network 'cnn-norm' takes images (channels, height, width), not inputs of {input_shape}")
    output = nn.Linear(16, num_outputs)
    layers: list[nn.Module] = []
    for channels, out, stride in ((input_shape[0], 8, 1), (8, 16, 2)):
        layers += [nn.Conv2d(channels, out, 3, stride, 1, bias=False), nn.BatchNorm2d(out), nn.ReLU()]
    return kaiming_(nn.Sequential(*layers, nn.AdaptiveAvgPool2d(1), nn.Flatten(), output), output=output)


NETWORKS: dict[str, Callable[[tuple[int, ...], int], nn.Module]] = {
    "mlp-relu": _mlp_relu,
    "mlp-sigmoid": _mlp_sigmoid,
    "mlp-norm": _mlp_norm,
    "cnn-norm": _cnn,
}
"""Every small network by its name: a function of the shape of an example and the number of outputs."""


def build_small(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return a small network, freshly initialized from torch's default generator.

    Raises:
        UserError: there is none of this name, or it does not take such inputs.
    """
    if name not in NETWORKS:
        known = ", ".join(NETWORKS)
        raise UserError(f"no small network is called {name!r}{nearest(name, NETWORKS)}; there are {known}")
    return NETWORKS[name](input_shape, num_outputs)
