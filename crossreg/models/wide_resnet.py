"""Wide residual networks for CIFAR."""

from __future__ import annotations

from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.models.checks import image, positive
from crossreg.models.init import kaiming_

__all__ = ["Block", "WideResNet", "wide_resnet"]


class Block(nn.Module):
    """Two 3x3 convolutions, each after its BatchNorm and ReLU, around a skip connection."""

    def __init__(self, channels: int, filters: int, stride: int) -> None:
        super().__init__()
        self.bn1 = nn.BatchNorm2d(channels)
        self.conv1 = nn.Conv2d(channels, filters, 3, stride, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(filters)
        self.conv2 = nn.Conv2d(filters, filters, 3, padding=1, bias=False)
        self.relu = nn.ReLU()
        same = channels == filters and stride == 1
        self.shortcut = None if same else nn.Conv2d(channels, filters, 1, stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        """Map `[N, channels, H, W]` to `[N, filters, H / stride, W / stride]`."""
        active = self.relu(self.bn1(x))
        # a shortcut that changes shape starts after the activation, as in the authors' code
        skip = x if self.shortcut is None else self.shortcut(active)
        return skip + self.conv2(self.relu(self.bn2(self.conv1(active))))


class WideResNet(nn.Module):
    """Three groups of blocks with 16, 32 and 64 channels times the width."""

    def __init__(self, channels: int, num_outputs: int, depth: int, width: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        blocks = []
        channels = 16
        for filters, stride in ((16 * width, 1), (32 * width, 2), (64 * width, 2)):
            for i in range((depth - 4) // 6):
                blocks.append(Block(channels, filters, stride if i == 0 else 1))
                channels = filters
        self.blocks = nn.Sequential(*blocks)
        self.bn = nn.BatchNorm2d(channels)
        self.relu = nn.ReLU()
        self.average = nn.AdaptiveAvgPool2d(1)
        self.fc = nn.Linear(channels, num_outputs)
        kaiming_(self, output=self.fc)

    def forward(self, x: Tensor) -> Tensor:
        """Map images `[N, channels, H, W]` to logits `[N, num_outputs]`."""
        x = self.relu(self.bn(self.blocks(self.conv1(x))))
        return self.fc(self.average(x).flatten(1))


def wide_resnet(*, input_shape: tuple[int, ...], num_outputs: int, depth: int = 28, width: int = 10) -> nn.Module:
    """Wide ResNet for CIFAR-sized images, WRN-28-10 unless told otherwise.

    Args:
        input_shape: `(channels, height, width)`; any number of channels.
        num_outputs: Width of the last layer.
        depth: Number of layers, 6n + 4: 10, 16, 22, 28, 40.
        width: Factor on the channels.

    Returns:
        A model from `[N, *input_shape]` to `[N, num_outputs]`.

    Raises:
        UserError: The inputs are not images from 8x8, or the depth is not 6n + 4.

    Source:
        Zagoruyko & Komodakis 2016, arXiv:1605.07146, table 1; without dropout.
    """
    channels, _, _ = image("wide_resnet", input_shape, smallest=8)
    positive("width of 'wide_resnet'", width)
    positive("depth of 'wide_resnet'", depth)
    if depth < 10 or depth % 6 != 4:
        raise UserError(f"depth of 'wide_resnet' is {depth}; it must be 6n + 4 with n >= 1, such as 10, 16, 28 or 40")
    return WideResNet(channels, num_outputs, depth, width)
