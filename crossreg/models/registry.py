"""From a model's name to the model."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any, Literal

from torch import nn

from crossreg.core.errors import UserError, nearest
from crossreg.models import custom, zoo
from crossreg.models.checks import positive
from crossreg.models.cnn import cnn
from crossreg.models.ensemble import Ensemble
from crossreg.models.mlp import mlp
from crossreg.models.resnet import resnet18, resnet34, resnet50
from crossreg.models.sequences import cnn1d, gru, lstm, transformer
from crossreg.models.shared import SharedMLP
from crossreg.models.vgg import vgg16
from crossreg.models.wide_resnet import wide_resnet

__all__ = [
    "Style",
    "build",
    "build_ensemble",
    "build_networks",
    "describe",
    "is_custom",
    "known",
    "networks",
    "options_for",
    "options_of",
    "takes",
    "takes_padding",
]

Style = Literal["independent", "shared"]
"""How the networks of an ensemble hold their weights."""

OWN: dict[str, Callable[..., nn.Module]] = {
    builder.__name__: builder
    for builder in (mlp, cnn, cnn1d, lstm, gru, transformer, vgg16, resnet18, resnet34, resnet50, wide_resnet)
}
_OF_SEQUENCES = ("cnn1d", "lstm", "gru", "transformer")


def build(name: str, *, input_shape: tuple[int, ...], num_outputs: int, **options: Any) -> nn.Module:
    """Build a model with fresh weights, on the current default device.

    No forward pass is run: whether torchvision's or the user's model takes inputs of this shape shows at its
    first batch.

    Args:
        name: One of `known()`; a torchvision classifier (`vit_b_16`); `torchvision:NAME` for torchvision's
            version of a name that is also ours; or `package.module:function` of the user's own, called as
            `function(input_shape=..., num_outputs=..., **options)`.
        input_shape: Shape of one example, without the batch: `(channels, height, width)` for images.
        num_outputs: Width of the last layer: classes, or the dimensions of a regression target.
        **options: The model's own settings, such as `depth` and `hidden` of `mlp`.

    Returns:
        The model, in training mode, on the scale of logits (no softmax).

    Raises:
        UserError: The name, an option or the input shape is not one the model takes.
    """
    input_shape = _shape(input_shape)
    positive("num_outputs", num_outputs)
    if name.startswith(zoo.PREFIX):
        return zoo.build(name.removeprefix(zoo.PREFIX), input_shape, num_outputs, options)
    if ":" in name:
        return custom.build(name, input_shape, num_outputs, options)
    if name in OWN:
        _check_options(name, options)
        return OWN[name](input_shape=input_shape, num_outputs=num_outputs, **options)
    if name in zoo.names():
        return zoo.build(name, input_shape, num_outputs, options)
    raise UserError(
        f"unknown model {name!r}{nearest(name, [*OWN, *zoo.names()])}; own models are {', '.join(OWN)}; "
        f"others are {zoo.PREFIX}NAME{'' if zoo.names() else ' (it does not work here)'} "
        "and package.module:function of your own"
    )


def build_ensemble(
    names: str,
    count: int,
    task: Literal["classification", "regression"],
    style: Style = "independent",
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    options: Mapping[str, Any],
) -> nn.Module:
    """Build a model of one network, or an `Ensemble` of several.

    Args:
        names: as `build_networks` takes them.
        count: how many networks.
        task: of an ensemble.
        style: "independent" networks, or "shared": `mlp`s that share their weights, see `SharedMLP`.
        input_shape: as in `build`.
        num_outputs: as in `build`.
        options: of the networks.

    Raises:
        UserError: as `build_networks` does, or shared weights of another network than `mlp`.
    """
    if style == "shared" and names != "mlp":
        raise UserError(f"the networks {names} cannot share weights; 'mlp' alone has a shared form")
    if style == "shared" and count > 1:
        _check_options(names, dict(options))
        return SharedMLP(count, task, input_shape=_shape(input_shape), num_outputs=num_outputs, **options)
    built = build_networks(names, count, input_shape=input_shape, num_outputs=num_outputs, options=options)
    return built[0] if count == 1 else Ensemble(built, task)


def build_networks(
    names: str, count: int, *, input_shape: tuple[int, ...], num_outputs: int, options: Mapping[str, Any]
) -> list[nn.Module]:
    """Build the networks of a model: one, or the members of an ensemble.

    Args:
        names: as `build` takes one; several, with commas between them, are taken in turn.
        count: how many networks.
        input_shape: as in `build`.
        num_outputs: as in `build`.
        options: of the networks; where they are of several kinds, each gets those that it has.

    Raises:
        UserError: as `build` does, or an option that none of several kinds has.
    """
    each = networks(names, count)
    kinds = dict.fromkeys(each)
    if len(kinds) > 1:
        for option in options:
            if not any(takes(kind, option) for kind in kinds):
                raise UserError(f"none of {', '.join(kinds)} takes the option {option!r}")
    return [
        build(
            name,
            input_shape=input_shape,
            num_outputs=num_outputs,
            **options_for(name, names, options),
        )
        for name in each
    ]


def options_for(name: str, names: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return the options that one of the named networks gets: all, and where they are of several kinds those it has."""
    return {key: value for key, value in options.items() if len(set(names.split(","))) == 1 or takes(name, key)}


def networks(names: str, count: int) -> tuple[str, ...]:
    """Return the name of each of so many networks: the given ones, with commas between them, in turn."""
    kinds = names.split(",")
    return tuple(kinds[index % len(kinds)] for index in range(count))


def known() -> dict[str, str]:
    """Return the models that need no prefix or import path: name -> one line."""
    return {name: (inspect.getdoc(builder) or "").partition("\n")[0] for name, builder in OWN.items()}


def takes(name: str, option: str) -> bool:
    """Say whether a model of our own, or a function of the user's, has an option of this name; of several, any.

    Raises:
        UserError: a function of the user's that cannot be imported.
    """
    if "," in name:
        return any(takes(one, option) for one in name.split(","))
    if name in OWN:
        return option in options_of(name)
    return is_custom(name) and custom.takes(name, option)


def takes_padding(name: str) -> bool:
    """Say whether a model leaves out what follows the end of a sequence, which is NaN; a user's own is taken to."""
    return all(one in _OF_SEQUENCES or is_custom(one) for one in name.split(","))


def is_custom(name: str) -> bool:
    """Say whether a name is that of a function of the user's own, `package.module:function`; of several, all."""
    return all(":" in one and not one.startswith(zoo.PREFIX) for one in name.split(","))


def describe() -> str:
    """Return one line per kind of model name, with the options each takes, for a command's help."""
    lines = []
    for name, summary in known().items():
        settings = ", ".join(f"{key}={default!r}" for key, default in options_of(name).items())
        lines.append(f"{name}: {summary}{f' Options: {settings}.' if settings else ''}")
    lines.append(f"{zoo.PREFIX}NAME: A classifier of torchvision, untrained. Only the names above need the prefix.")
    lines.append("package.module:function: Your own, called with input_shape=, num_outputs= and the options.")
    return "\n".join(lines)


def options_of(name: str) -> dict[str, Any]:
    """Return the options of a model of our own, with their defaults."""
    parameters = inspect.signature(OWN[name]).parameters
    return {key: p.default for key, p in parameters.items() if key not in ("input_shape", "num_outputs")}


def _check_options(name: str, options: dict[str, Any]) -> None:
    valid = options_of(name)
    for key in options:
        if key not in valid:
            allowed = f"its options are {', '.join(valid)}" if valid else "it takes no options"
            raise UserError(f"model {name!r} does not take the option {key!r}{nearest(key, valid)}; {allowed}")


def _shape(input_shape: tuple[int, ...]) -> tuple[int, ...]:
    try:
        shape = tuple(input_shape)
    except TypeError:
        shape = ()
    if not shape:
        raise UserError(f"input_shape is {input_shape!r}; give the shape of one example without the batch: (3, 32, 32)")
    for size in shape:
        positive(f"every size in input_shape {shape}", size)
    return shape
