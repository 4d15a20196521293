"""ResNets with the stem used on CIFAR."""

from __future__ import annotations

from torch import nn

from crossreg.models import zoo
from crossreg.models.checks import image

__all__ = ["resnet18", "resnet34", "resnet50"]


def resnet18(*, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """ResNet-18 with a 3x3 stem for CIFAR-sized images; torchvision:resnet18 is the one for ImageNet."""
    return _cifar("resnet18", input_shape, num_outputs)


def resnet34(*, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """ResNet-34 with a 3x3 stem for CIFAR-sized images; torchvision:resnet34 is the one for ImageNet."""
    return _cifar("resnet34", input_shape, num_outputs)


def resnet50(*, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """ResNet-50 with a 3x3 stem for CIFAR-sized images; torchvision:resnet50 is the one for ImageNet."""
    return _cifar("resnet50", input_shape, num_outputs)


def _cifar(name: str, input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Build torchvision's network and replace its stem; names in the state dict stay torchvision's.

    Source:
        He et al. 2016, arXiv:1512.03385. The 7x7 stride-2 stem and its max-pool would leave one pixel of
        a 32x32 image, so a 3x3 stride-1 convolution takes their place, as is usual on CIFAR.
    """
    channels, _, _ = image(name, input_shape, smallest=8)
    model = zoo.module().get_model(name, weights=None, num_classes=num_outputs)
    model.conv1 = nn.Conv2d(channels, 64, 3, padding=1, bias=False)
    nn.init.kaiming_normal_(model.conv1.weight, mode="fan_out", nonlinearity="relu")
    model.maxpool = nn.Identity()
    return model
