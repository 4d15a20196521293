"""Whether inputs lie where those of training did: values in another unit are answered, and said.

Two signs, both rare among inputs that are as training's were. *Far*: most examples lie beyond the training split's
range by more than three times its width. *Narrow*: all that came lies within a tenth of that range, in every channel,
as pixels of 0..16 do for a model of 0..255. One blank image, a constant feature and a few rows that are alike are none.
"""

from __future__ import annotations

import numpy as np

from crossreg.core.errors import quoted
from crossreg.inputs import Number, Table
from crossreg.prediction.export import Exported

__all__ = ["SpanCheck"]

_WIDTHS = 3.0
_NARROW = 0.1
_MANY = 32
"""Values, or rows of a table, whose range says something."""
_FEW = 10
"""Examples of which one feature without a name says nothing: it may hardly vary in training."""
_FEATURES = 3
"""Features that are not all narrow by chance."""
_NAMED = 3
"""Columns that a warning names."""


class SpanCheck:
    """Looks at inputs, as many batches as there are, and says at the end what is odd.

    Args:
        model: which they are for; one whose file does not tell its range has nothing said.
    """

    def __init__(self, model: Exported) -> None:
        self._inputs = model.inputs
        self._known = model.span is not None
        if model.span is None:
            return
        self._low, self._high = model.span
        if isinstance(model.inputs, Table):
            names = [one.features[0] for one in model.inputs.columns if isinstance(one, Number)]
            self._judged = np.isin(model.inputs.features, names)
        else:
            self._judged = np.ones(len(self._low), bool)
        self._judged &= self._high > self._low
        self._count, self._positions = 0, 1
        self._beyond = np.zeros(len(self._low), int)
        self._seen = np.full(len(self._low), np.inf), np.full(len(self._low), -np.inf)

    def add(self, x: np.ndarray) -> None:
        """Look at `[N, ...]` examples, as `Exported.encode` returns them."""
        if not self._known or not len(x):
            return
        flat = x.reshape(*x.shape[:2], -1)
        # what comes after a sequence's end is NaN
        low, high = np.fmin.reduce(flat, 2).astype(float), np.fmax.reduce(flat, 2).astype(float)
        margin = _WIDTHS * (self._high - self._low)
        self._beyond += ((low < self._low - margin) | (high > self._high + margin)).sum(0)
        self._count += len(x)
        self._positions = flat.shape[2]
        self._seen = np.fmin(self._seen[0], low.min(0)), np.fmax(self._seen[1], high.max(0))

    def warnings(self) -> list[str]:
        """Return what is odd, in sentences."""
        if not self._known or not self._count:
            return []
        odd = self._judged & (2 * self._beyond > self._count)
        if not isinstance(self._inputs, Table) and self._count < _FEW and 2 * odd.sum() < self._judged.sum():
            odd[:] = False
        if not odd.any() and self._narrow():
            odd = self._judged
        if not odd.any():
            return []
        if not isinstance(self._inputs, Table):
            return [f"inputs: {self._reach(odd)}"]
        names = [name for name, one in zip(self._inputs.features, odd, strict=True) if one]
        said = [
            f"column {quoted(name)}: {self._reach(odd & (np.array(self._inputs.features) == name))}" for name in names
        ]
        more = [f"{len(said) - _NAMED} more columns are as far from training"] if len(said) > _NAMED else []
        return said[:_NAMED] + more

    def _narrow(self) -> bool:
        """Say whether all that came lies in a small part of the range, in every channel that has one."""
        positions = self._positions if self._count * self._positions >= _MANY else 0
        image = not isinstance(self._inputs, Table) and getattr(self._inputs, "dtype", "") == "uint8"
        if not positions or (not image and (self._count < _MANY or self._judged.sum() < _FEATURES)):
            return False
        width = (self._seen[1] - self._seen[0])[self._judged] / (self._high - self._low)[self._judged]
        return bool((width < _NARROW).all() and (width > 0).any())

    def _reach(self, odd: np.ndarray) -> str:
        offsets = self._offsets()[odd]
        low, high = ((one[odd] + offsets) for one in self._seen)
        from_, to = ((one[odd] + offsets) for one in (self._low, self._high))
        return (
            f"{low.min():.4g} to {high.max():.4g} here, {from_.min():.4g} to {to.max():.4g} in training; are they in "
            "the same unit?"
        )

    def _offsets(self) -> np.ndarray:
        """Return what was taken off each channel's values before they became float32."""
        if isinstance(self._inputs, Table):
            by_name = {one.features[0]: one.offset for one in self._inputs.columns if isinstance(one, Number)}
            return np.array([by_name.get(name, 0.0) for name in self._inputs.features])
        return np.asarray(self._inputs.offset or np.zeros(len(self._low)))
