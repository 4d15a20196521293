"""Learned augmentation: how far training images are moved, turned and disturbed is rho.

    x' = contrast, brightness and noise of warp(x; A),   A = shift . rotation . shear . scale,   one draw an image
    a draw is magnitude * u,   u ~ U(-1, 1)  (noise: N(0, 1)),   magnitude = exp(rho)

The warp is differentiable in A, so gradients reach rho. It is resampled once, by the composed matrix. A forward
pre-hook puts it in front of the model, so the names of the model's own weights stay as they are.

Source: the warp is a spatial transformer (Jaderberg et al. 2015, arXiv:1506.02025); magnitudes learned by the gradient
of a held-out loss through theta's response, Lorraine, Vicol, Duvenaud 2020, arXiv:1911.02590. Augerino (Benton et al.
2020, arXiv:2010.11882) learns them on the *training* loss instead, and needs a bonus for wide ranges not to lose them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from contextlib import nullcontext
from dataclasses import replace
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.errors import UserError, nearest
from crossreg.core.modules import AttachedModules, remove_hook, rho_device_and_dtype, unwrap
from crossreg.regularizers.base import Hyperparameter, Regularizer
from crossreg.regularizers.noise import Stochastic
from crossreg.regularizers.normal import standard_normal_like

__all__ = ["AUGMENTATIONS", "KINDS", "Augmentation", "learn_augmentation", "remove_augmentation", "warp"]


def _kind(name: str, help: str, unit: str, default: float, range: tuple[float, float]) -> Hyperparameter:
    return Hyperparameter(name, f"training images: {help}, at most so much", unit, default, range)


KINDS = {
    "shift": _kind("shift", "shifted along each axis by itself", "pixels", 1.0, (0.1, 8.0)),
    "rotation": _kind("rotation", "turned", "degrees", 5.0, (0.5, 60.0)),
    "shear": _kind("shear", "sheared", "degrees", 5.0, (0.5, 45.0)),
    "scale": _kind("scale", "grown and shrunk", "logarithm of the factor", 0.05, (0.005, 0.5)),
    "brightness": _kind("brightness", "brightened and darkened", "normalized input", 0.1, (0.01, 1.0)),
    "contrast": _kind("contrast", "with more and less contrast", "logarithm of the factor", 0.1, (0.01, 1.0)),
    "input_noise": Hyperparameter(
        "input_noise", "Gaussian noise on training images; its scale", "normalized input", 0.1, (0.01, 1.0)
    ),
}
"""Every kind of augmentation: the magnitude of its draws is the hyperparameter."""

_GEOMETRIC = ("shift", "rotation", "shear", "scale")
_ATTRIBUTE = "learned_augmentation"


class Augmentation(Stochastic):
    """Draws a transform an image and applies it; holds the logarithm of every kind's magnitude, `rho_<kind>`.

    It draws in training mode and passes images through in evaluation mode; `sampling` forces it on if `predict`.

    Args:
        magnitudes: positive start value by kind, see `KINDS`; or kinds alone, which start at the defaults there.
        predict: draw in predictions that average over draws too (test-time augmentation), and so in the held-out loss
            with theta held fixed, whose direct gradient can then learn rho. Off, training images alone are changed,
            and only an estimator that follows theta's response can.

    Raises:
        UserError: no kind, an unknown one, or a magnitude that is not positive and finite.
    """

    def __init__(self, magnitudes: Mapping[str, float] | Iterable[str] = tuple(KINDS), predict: bool = False) -> None:
        super().__init__()
        self.predicts = self.direct = predict
        self.kinds: tuple[str, ...] = ()
        for kind, magnitude in _checked(magnitudes).items():
            self.add(kind, magnitude)

    def add(self, kind: str, magnitude: float) -> None:
        """Add a kind that it does not have yet; kinds are applied in the order of `KINDS`, however they came."""
        # requires_grad is off outside the rho step, so DDP and the theta optimizer pass rho by
        rho = KINDS[kind].unconstrained(magnitude)
        beside = next(self.parameters(), rho)
        self.register_parameter(f"rho_{kind}", nn.Parameter(rho.to(beside), requires_grad=False))
        self.kinds = tuple(name for name in KINDS if name == kind or name in self.kinds)

    @property
    def magnitudes(self) -> dict[str, Tensor]:
        """The magnitudes in use by kind, positive scalars."""
        return {kind: KINDS[kind].natural(getattr(self, f"rho_{kind}")) for kind in self.kinds}

    def hyperparameters(self) -> list[Hyperparameter]:
        """Return every magnitude."""
        return [replace(KINDS[kind], direct=self.direct).of_rho(getattr(self, f"rho_{kind}")) for kind in self.kinds]

    def forward(self, x: Tensor) -> Tensor:
        """Return images `[B, C, H, W]` under a fresh draw, of the same shape and dtype.

        Raises:
            UserError: anything but a batch of floating-point images.
        """
        if not (self.training or self.forced):
            return x
        if not isinstance(x, Tensor) or x.ndim != 4 or not x.is_floating_point():
            given = f"{tuple(x.shape)} {str(x.dtype).removeprefix('torch.')}" if isinstance(x, Tensor) else type(x)
            raise UserError(
                f"augmentation is for batches of images (batch, channels, height, width) of floats; given is {given}"
            )
        # positions in half precision would be off by tenths of a pixel
        images = x if x.dtype in (torch.float32, torch.float64) else x.float()
        full = nullcontext() if x.device.type == "meta" else torch.autocast(x.device.type, enabled=False)
        with full:
            return self._changed(images).to(x.dtype)

    def extra_repr(self) -> str:
        """Describe the magnitudes in `print(model)`."""
        values = ", ".join(f"{kind}={float(value):.3g}" for kind, value in self.magnitudes.items())
        return values + (", in predictions too" if self.predicts else "")

    def _changed(self, x: Tensor) -> Tensor:
        size = {k: (m if self.learning else m.detach()).to(x.dtype) for k, m in self.magnitudes.items()}
        drawn: dict[str, Tensor] = {}
        for kind in self.kinds:
            if kind != "input_noise":
                columns = (2,) if kind == "shift" else ()
                u = 2 * torch.rand(len(x), *columns, dtype=x.dtype, device=x.device) - 1
                drawn[kind] = self.sign * u * size[kind]
        if any(kind in drawn for kind in _GEOMETRIC):
            x = warp(x, **{kind: drawn[kind] for kind in _GEOMETRIC if kind in drawn})
        if "contrast" in drawn:
            mean = x.mean((1, 2, 3), keepdim=True)
            x = mean + (x - mean) * drawn["contrast"].exp().view(-1, 1, 1, 1)
        if "brightness" in drawn:
            x = x + drawn["brightness"].view(-1, 1, 1, 1)
        if "input_noise" in size:
            x = torch.addcmul(x, self.sign * size["input_noise"], standard_normal_like(x))
        return x


def warp(
    x: Tensor,
    *,
    shift: Tensor | None = None,
    rotation: Tensor | None = None,
    shear: Tensor | None = None,
    scale: Tensor | None = None,
) -> Tensor:
    """Move the content of images about their centre: first scale, then shear, rotation and shift; differentiable.

    Bilinear, and beyond the edge the value at the edge: 0 of a normalized input is a mid grey, and a frame of it would
    tell a network how far an image was moved. Where the background is even, the edge continues it.

    Args:
        x: `[B, C, H, W]`.
        shift: pixels to the right and down, `[B, 2]`.
        rotation: degrees counterclockwise, `[B]`.
        shear: degrees, `[B]`; a row goes to the right by tan(shear) times its distance below the centre.
        scale: logarithm of the factor, `[B]`; above 0 content grows.

    Returns:
        Images of the same shape.
    """
    none = x.new_zeros(len(x))
    turn, slant = (none if angle is None else angle * (math.pi / 180) for angle in (rotation, shear))
    k, cos, sin = slant.tan(), turn.cos(), turn.sin()
    # for each place of the output, where it comes from: the inverse of every transform, in the opposite order
    rows = torch.stack([cos - k * sin, -sin - k * cos, sin, cos], 1).view(-1, 2, 2)
    if scale is not None:
        rows = rows * torch.exp(-scale).view(-1, 1, 1)
    offset = x.new_zeros(len(x), 2, 1) if shift is None else -rows @ shift.unsqueeze(2)
    # affine_grid counts in halves of the image
    half = x.new_tensor([x.shape[3] / 2, x.shape[2] / 2])
    matrix = torch.cat([rows * half / half.unsqueeze(1), offset / half.unsqueeze(1)], 2)
    grid = F.affine_grid(matrix, list(x.shape), align_corners=False)
    return F.grid_sample(x, grid, mode="bilinear", padding_mode="border", align_corners=False)


def learn_augmentation(
    model: nn.Module, magnitudes: Mapping[str, float] | Iterable[str] = tuple(KINDS), predict: bool = False
) -> nn.Module:
    """Put augmentation with learned magnitudes in front of a model, in place.

    State-dict keys of the model's own weights stay as they are, and weights saved before still load with
    `strict=True`; the model gains a key a kind, `learned_augmentation.0.rho_shift`. Wrap in
    `DistributedDataParallel` or `torch.compile` *after*.

    Args:
        model: takes images `[B, C, H, W]` as its first argument.
        magnitudes: see `Augmentation`.
        predict: see `Augmentation`.

    Returns:
        The same model.

    Raises:
        UserError: a wrapped model, one that has augmentation, or magnitudes that are wrong.
    """
    if model is not unwrap(model):
        raise UserError("learn_augmentation was given a wrapped model; call it first, then wrap with DDP")
    if hasattr(model, _ATTRIBUTE):
        raise UserError("the model has learned augmentation already; name all kinds in one call")
    augmentation = Augmentation(magnitudes, predict).train(model.training)
    augmentation.to(*rho_device_and_dtype(model, model))
    model.add_module(_ATTRIBUTE, AttachedModules([augmentation]))
    model.register_forward_pre_hook(_augment)
    return model


def remove_augmentation(model: nn.Module) -> None:
    """Take learned augmentation out of a model, if it has any."""
    model = unwrap(model)
    if hasattr(model, _ATTRIBUTE):
        delattr(model, _ATTRIBUTE)
        remove_hook(model._forward_pre_hooks, _augment)


def _augment(module: nn.Module, args: tuple[Any, ...]) -> tuple[Any, ...]:
    augmentation = next(module.get_submodule(_ATTRIBUTE).children())
    if not args:
        raise UserError("a model with learned augmentation takes its images as the first positional argument")
    return (augmentation(args[0]), *args[1:])


def _checked(magnitudes: Mapping[str, float] | Iterable[str]) -> dict[str, float]:
    if isinstance(magnitudes, str):
        magnitudes = (magnitudes,)
    given: dict[str, Any] = dict(magnitudes) if isinstance(magnitudes, Mapping) else dict.fromkeys(magnitudes)
    if not given:
        raise UserError(f"no kind of augmentation is given; allowed are {', '.join(KINDS)}")
    for kind, value in given.items():
        if kind not in KINDS:
            raise UserError(f"unknown augmentation {kind!r}{nearest(kind, KINDS)}; allowed are {', '.join(KINDS)}")
        value = given[kind] = KINDS[kind].default if value is None else value
        if not (isinstance(value, int | float) and 0 < value < math.inf):
            raise UserError(f"the magnitude of {kind!r} is {value!r}; it must be a positive finite number")
    return {kind: float(given[kind]) for kind in KINDS if kind in given}


def _attach(model: nn.Module, value: float | None, kind: str) -> None:
    start = KINDS[kind].default if value is None else value
    assert start is not None
    if hasattr(model, _ATTRIBUTE):
        _checked({kind: start})
        getattr(model, _ATTRIBUTE)[0].add(kind, start)
    else:
        learn_augmentation(model, {kind: start})


AUGMENTATIONS = tuple(
    Regularizer(hyperparameter, partial(_attach, kind=kind), remove_augmentation, changes_images=True)
    for kind, hyperparameter in KINDS.items()
)
