"""Torchvision's image classifiers, untrained."""

from __future__ import annotations

import inspect
from typing import Any

import torch
from torch import nn

from crossreg.core.errors import UserError, nearest
from crossreg.models.checks import image

__all__ = ["PREFIX", "build", "module", "names"]

PREFIX = "torchvision:"
FIXED = ("weights", "num_classes")


def module() -> Any:
    """Import `torchvision.models`, which only these models need.

    Raises:
        UserError: Torchvision is not installed, or does not work with this torch.
    """
    try:
        import torchvision.models
    # a torchvision made for another torch fails with an OSError or a RuntimeError
    except (ImportError, OSError, RuntimeError) as error:
        raise UserError(
            f"this model needs a torchvision that fits torch {torch.__version__}: {error}; "
            "install the two together: pip install torch torchvision"
        ) from error
    return torchvision.models


def names() -> list[str]:
    """Return the names of torchvision's image classifiers; none if torchvision does not work here."""
    try:
        models = module()
    except UserError:
        return []
    # its registry also holds segmentation, detection and video models, which do not return one row of logits
    return models.list_models(module=models)


def build(name: str, input_shape: tuple[int, ...], num_outputs: int, options: dict[str, Any]) -> nn.Module:
    """Build a torchvision classifier with fresh weights for images of one or three channels.

    Args:
        name: One of `names()`.
        input_shape: `(1 or 3, height, width)`.
        num_outputs: Width of the last layer.
        options: Keyword arguments of the model, beside those set here.

    Raises:
        UserError: The name, the shape or an option is not one that torchvision takes.
    """
    models = module()
    if name not in names():
        raise UserError(f"torchvision has no classifier {name!r}{nearest(name, names())}; it has {', '.join(names())}")
    channels, height, width = image(PREFIX + name, input_shape, smallest=1)
    if channels not in (1, 3):
        raise UserError(
            f"torchvision's {name} takes images of 3 channels, or 1; the inputs have shape {input_shape}. "
            "Own models such as 'cnn' and 'resnet18' take any number of channels"
        )
    for key in FIXED:
        if key in options:
            raise UserError(f"the option {key!r} of torchvision's {name} is set by crossreg; leave it out")
    settings = _settings(name, height, width) | options
    try:
        model = models.get_model(name, weights=None, num_classes=num_outputs, **settings)
    except TypeError as error:
        raise UserError(
            f"torchvision's {name} refused its options: {error}; it takes {_options(models, name)}"
        ) from error
    except (AssertionError, ValueError) as error:
        given = f"inputs of shape {input_shape} and options {options}"
        raise UserError(f"torchvision's {name} cannot be built for {given}: {error}") from error
    return model if channels == 3 else _gray(model)


def _settings(name: str, height: int, width: int) -> dict[str, Any]:
    """Return what a model must be told so that it fits the images and returns its logits alone."""
    if name.startswith("vit_"):
        if height != width:
            raise UserError(f"torchvision's {name} takes square images, not {height}x{width}")
        return {"image_size": height}
    if name.startswith("maxvit_"):
        return {"input_size": (height, width)}
    if name in ("googlenet", "inception_v3"):
        return {"aux_logits": False, "init_weights": False}
    return {}


def _options(models: Any, name: str) -> str:
    # builders hand their keyword arguments on to the class they are annotated to return
    model_class = inspect.signature(models.get_model_builder(name)).return_annotation
    parameters = inspect.signature(model_class.__init__).parameters.values()
    return ", ".join(p.name for p in parameters if p.default is not p.empty and p.name not in FIXED)


def _gray(model: nn.Module) -> nn.Module:
    """Make a model of color images take gray ones, in place.

    Summing the first convolution's weights over its inputs gives what the model would return for the gray
    image repeated in all three channels.
    """
    first = next(m for m in model.modules() if isinstance(m, nn.Conv2d))
    with torch.no_grad():  # initialization, not a step of training
        first.weight = nn.Parameter(first.weight.sum(dim=1, keepdim=True))
    first.in_channels = 1
    return model
