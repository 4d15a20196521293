"""Arrays as a model takes them: of the type, the layout and the units that its training data had."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np

from crossreg.core.errors import UserError

__all__ = ["Array", "Layout"]

Layout = Literal["as stored", "channels last", "no channel axis"]


@dataclass(frozen=True)
class Array:
    """What an array of examples is, as it is stored.

    Attributes:
        dtype: of the training data, as NumPy writes it, "uint8" for bytes; "" where that is not known.
        layout: how an example is stored; the model takes images as `[C, H, W]`.
        offset: taken off before values become float32, which would lose them otherwise: one a feature (the second
            axis); none where nothing is lost.
        resize: whether image files were brought to the model's size in training: whole, and cut to its shape.
    """

    dtype: str = ""
    layout: Layout = "as stored"
    offset: tuple[float, ...] = ()
    resize: bool = False

    def images(self, shape: tuple[int, ...]) -> bool:
        """Say whether examples `[C, H, W]` are images of bytes, which image files are too."""
        return self.dtype == "uint8" and len(shape) == 3

    def encode(self, x: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        """Return what the model's preprocessing takes, `[N, *shape]`: uint8, int64 or float32.

        Args:
            x: `[N, ...]`, numbers of any type, as they were stored or as the model takes them.
            shape: of one example, as the model takes it.

        Raises:
            UserError: another shape, or no numbers.
        """
        if x.dtype.kind not in "buif":
            raise UserError(f"inputs have dtype {x.dtype}; this model takes numbers")
        if x.shape[1:] != shape:
            if self.layout == "channels last" and (x.shape[-1:] + x.shape[1:-1]) == shape:
                x = np.moveaxis(x, -1, 1)
            elif self.layout == "no channel axis" and x.shape[1:] == shape[1:]:
                x = x[:, None]
            else:
                raise UserError(f"inputs have shape {x.shape}; this model takes (N, {', '.join(map(str, shape))})")
        return np.ascontiguousarray(narrowed(x, self.offset))


def narrowed(x: np.ndarray, offset: tuple[float, ...]) -> np.ndarray:
    """Return bytes as they are, whole numbers as int64, and others as float32, less the offset.

    Args:
        x: `[N, C, ...]`, or any where there is no offset.
        offset: C numbers, or none.
    """
    if offset:
        shape = (-1, *[1] * (x.ndim - 2))
        x = x.astype(np.float64) - np.asarray(offset).reshape(shape)
    if x.dtype == np.uint8:
        return x
    # too large for float32 becomes infinity, which is refused where it is read
    with np.errstate(over="ignore"):
        return x.astype(np.int64 if x.dtype.kind in "iu" and x.ndim <= 3 else np.float32, copy=False)
