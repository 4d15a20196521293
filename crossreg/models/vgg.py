"""VGG-16 as used on CIFAR."""

from __future__ import annotations

from torch import Tensor, nn

from crossreg.models.checks import image, positive
from crossreg.models.init import kaiming_

__all__ = ["VGG", "vgg16"]

STAGES = ((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))


class VGG(nn.Module):
    """Stages of 3x3 convolutions with BatchNorm, each ending in a 2x2 max-pool, and one linear layer."""

    def __init__(self, channels: int, num_outputs: int, stages: tuple[tuple[int, int], ...] = STAGES) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for filters, repeats in stages:
            for _ in range(repeats):
                layers += [
                    nn.Conv2d(channels, filters, 3, padding=1, bias=False),
                    nn.BatchNorm2d(filters),
                    nn.ReLU(),
                ]
                channels = filters
            # rounding up changes nothing for 32x32 and leaves a pixel of 28x28, which rounding down uses up
            layers.append(nn.MaxPool2d(2, ceil_mode=True))
        self.features = nn.Sequential(*layers)
        self.average = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Linear(channels, num_outputs)
        kaiming_(self, output=self.classifier)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[N, channels, H, W]` to logits `[N, num_outputs]`."""
        return self.classifier(self.average(self.features(x)).flatten(1))


def vgg16(*, input_shape: tuple[int, ...], num_outputs: int, width: int = 64) -> nn.Module:
    """VGG-16 with BatchNorm for CIFAR-sized images, from 16x16: 13 convolutions and one linear layer.

    Args:
        input_shape: `(channels, height, width)`; any number of channels.
        num_outputs: Width of the last layer.
        width: Channels of the first stage, at least 1; the others have 2, 4, 8 and 8 times as many.

    Returns:
        A model from `[N, *input_shape]` to `[N, num_outputs]`.

    Raises:
        UserError: The inputs are not images, or are smaller than 16x16.

    Source:
        Simonyan & Zisserman 2015, arXiv:1409.1556, configuration D. As is usual on CIFAR, BatchNorm after
        every convolution and 512 -> classes in place of the three wide linear layers.
    """
    channels, _, _ = image("vgg16", input_shape, smallest=16)
    positive("width of 'vgg16'", width)
    stages = tuple((filters * width // 64, repeats) for filters, repeats in STAGES)
    return VGG(channels, num_outputs, stages)
