"""A small image network that every regularizer finds its place in."""

from __future__ import annotations

import torch
from torch import Tensor, nn

INPUT_SHAPE, CLASSES = (1, 6, 6), 3


def network(input_shape: tuple[int, ...] = INPUT_SHAPE, num_outputs: int = CLASSES) -> nn.Sequential:
    torch.manual_seed(0)
    pixels = input_shape[-2] * input_shape[-1]
    return nn.Sequential(
        nn.Conv2d(input_shape[0], 4, 3, padding=1),
        nn.BatchNorm2d(4),
        nn.Tanh(),
        nn.Dropout(0.25),
        nn.Flatten(),
        nn.Linear(4 * pixels, 8),
        nn.LayerNorm(8),
        nn.Tanh(),
        nn.Linear(8, num_outputs),
    )


def images(rows: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    generator = torch.Generator().manual_seed(seed)
    x = torch.randn(rows, *INPUT_SHAPE, generator=generator)
    return x, torch.randint(0, CLASSES, (rows,), generator=generator)
