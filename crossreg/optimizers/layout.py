"""Parameters side by side in one row of numbers, and means over each of them."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property

import torch
from torch import Tensor

__all__ = ["Layout"]


@dataclass(frozen=True)
class Layout:
    """Which parameter each of P coordinates belongs to; they lie one parameter after the other.

    Attributes:
        shapes: of the parameters.
    """

    shapes: tuple[tuple[int, ...], ...]

    @classmethod
    def of(cls, parameters: Iterable[Tensor]) -> Layout:
        """Return the layout of some parameters."""
        return cls(tuple(tuple(parameter.shape) for parameter in parameters))

    @cached_property
    def sizes(self) -> tuple[int, ...]:
        """Coordinates of each parameter."""
        return tuple(math.prod(shape) for shape in self.shapes)

    @property
    def num_coordinates(self) -> int:
        """P."""
        return sum(self.sizes)

    def flat(self, tensors: Sequence[Tensor]) -> Tensor:
        """Return the values of tensors of these shapes, `[*, P]`; dimensions that lead the shapes are kept."""
        pairs = zip(tensors, self.shapes, strict=True)
        return torch.cat([one.reshape((*one.shape[: one.ndim - len(shape)], -1)) for one, shape in pairs], dim=-1)

    def apart(self, flat: Tensor) -> list[Tensor]:
        """Return the parameters of `[*, P]` values, each `[*, *shape]`."""
        parts = zip(flat.split(self.sizes, dim=-1), self.shapes, strict=True)
        return [part.reshape((*part.shape[:-1], *shape)) for part, shape in parts]

    def mean(self, x: Tensor) -> Tensor:
        """Return `[*, P]`: for every coordinate the mean of `x` `[*, P]` over its parameter."""
        return torch.cat([part.mean(-1, keepdim=True).expand_as(part) for part in x.split(self.sizes, dim=-1)], dim=-1)

    def rows_and_columns(self, x: Tensor) -> tuple[Tensor, Tensor]:
        """Return for every coordinate of `x` `[*, P]` the mean over its row and over its column, `[*, P]` each.

        A parameter is a matrix of its first dimension by all others; a vector is one of a single column.
        """
        rows, columns = [], []
        for part, shape in zip(x.split(self.sizes, dim=-1), self.shapes, strict=True):
            if len(shape) < 2:
                rows.append(part)
                columns.append(part.mean(-1, keepdim=True).expand_as(part))
                continue
            matrix = part.unflatten(-1, (shape[0], -1))
            rows.append(matrix.mean(-1, keepdim=True).expand_as(matrix).flatten(-2))
            columns.append(matrix.mean(-2, keepdim=True).expand_as(matrix).flatten(-2))
        return torch.cat(rows, -1), torch.cat(columns, -1)
