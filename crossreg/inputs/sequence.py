"""Sequences as a model takes them: channels first, of one length or padded with NaN."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from crossreg.core.errors import UserError
from crossreg.inputs.array import narrowed

__all__ = ["Sequence", "TimeAxis", "lengths_of", "padded"]

TimeAxis = Literal["first", "last"]


@dataclass(frozen=True)
class Sequence:
    """What an array of sequences is, as it is stored.

    A model takes `[N, channels, time]`, float32. Where lengths differ, what comes after a sequence's end is NaN in
    every channel, as tslearn and aeon have it: a model that counts no padding sees it there.

    Attributes:
        time: which axis of a stored example is time; one of a single channel may be stored without the other.
        lengths_differ: whether those of the training data did; if not, all have one length.
        offset: taken off a channel before values become float32, which would lose them otherwise; none where nothing
            is lost.
    """

    time: TimeAxis
    lengths_differ: bool = False
    offset: tuple[float, ...] = ()

    def stored_shape(self, shape: tuple[int, ...]) -> tuple[int, ...]:
        """Return the shape of an example as it is stored, from `(channels, time)`; the longest where lengths differ."""
        return shape[::-1] if self.time == "first" else shape

    def takes(self, shape: tuple[int, ...], expected: tuple[int, ...]) -> bool:
        """Say whether examples of a shape `(channels, time)` are what a model takes that was trained on another."""
        if not self.lengths_differ:
            return shape == expected
        return len(shape) == 2 and shape[0] == expected[0] and shape[1] > 0

    def encode(self, rows: Any, shape: tuple[int, ...]) -> np.ndarray:
        """Return what the model's preprocessing takes: float32 `[N, channels, time]`.

        Args:
            rows: N sequences as they are stored: an array, or a list of arrays that may differ in length.
            shape: `(channels, time)` of the training data; the longest where lengths differed.

        Raises:
            UserError: other channels or another length, no numbers, or NaN before the end.
        """
        examples = [np.asarray(row) for row in rows]
        channels, steps = shape
        for index, one in enumerate(examples):
            if one.dtype.kind not in "buif":
                raise UserError(f"inputs have dtype {one.dtype}; this model takes numbers")
            turned = self._turned(one, channels)
            if turned is None or not (self.lengths_differ or turned.shape[1] == steps):
                raise UserError(self._expected(index, one, shape))
            examples[index] = turned
        x = padded(examples, steps if self.lengths_differ else 0)
        x = narrowed(x, self.offset).astype(np.float32, copy=False)
        lengths_of("inputs", x, self.lengths_differ)
        return x

    def _turned(self, one: np.ndarray, channels: int) -> np.ndarray | None:
        """Return an example as `[channels, time]`, or None where it is none."""
        if one.ndim == 1 and channels == 1:
            one = one[None]
        elif one.ndim == 2 and self.time == "first":
            one = one.T
        return one if one.ndim == 2 and len(one) == channels and one.shape[1] else None

    def _expected(self, index: int, one: np.ndarray, shape: tuple[int, ...]) -> str:
        stored = list(map(str, self.stored_shape(shape)))
        if self.lengths_differ:
            stored[0 if self.time == "first" else 1] = "any number of steps"
        longer = not self.lengths_differ and one.ndim == 2 and max(one.shape) > max(shape)
        remedy = f"; cut longer ones into windows of {shape[1]} steps" if longer else ""
        return f"inputs[{index}] has shape {one.shape}; this model takes ({', '.join(stored)}){remedy}"


def padded(examples: Iterable[np.ndarray], steps: int = 0) -> np.ndarray:
    """Return sequences `[channels, time]` as one array `[N, channels, time]`, NaN after their ends.

    Args:
        examples: of equal channels, at least one.
        steps: the least that the time axis has.
    """
    found = list(examples)
    longest = max(steps, *(one.shape[1] for one in found))
    if all(one.shape[1] == longest for one in found):
        return np.stack(found)
    x = np.full((len(found), len(found[0]), longest), np.nan, np.result_type(np.float32, *(one.dtype for one in found)))
    for row, one in zip(x, found, strict=True):
        row[:, : one.shape[1]] = one
    return x


def lengths_of(what: str, x: np.ndarray, may_differ: bool = True) -> np.ndarray:
    """Return how many steps each sequence has, int64 `[N]`.

    Args:
        what: what messages call x.
        x: `[N, channels, time]`, NaN in every channel after a sequence's end.
        may_differ: whether there may be an end before the last step.

    Raises:
        UserError: infinity, NaN before a sequence's end or in some of its channels, or a sequence of no steps.
    """
    present = ~np.isnan(x).all(1)
    steps = x.shape[2]
    lengths = np.where(present.any(1), steps - present[:, ::-1].argmax(1), 0)
    inside = np.arange(steps) < lengths[:, None]
    wrong = ~np.isfinite(x) & inside[:, None]
    if wrong.any():
        row, channel, step = (int(place) for place in np.unravel_index(int(wrong.argmax()), x.shape))
        raise UserError(
            f"{what}: sequence {row} is {x[row, channel, step]} at step {step} of channel {channel}, before its end at "
            f"{lengths[row]} ({int(wrong.sum())} such values in all); values must be finite, and only after the end NaN"
        )
    if not lengths.all():
        raise UserError(f"{what}: sequence {int(lengths.argmin())} has no steps; drop it")
    if not may_differ and (lengths < steps).any():
        row = int((lengths < steps).argmax())
        raise UserError(f"{what}: sequence {row} ends after {lengths[row]} steps, and all must have {steps}")
    return lengths.astype(np.int64)
