"""A network that fails in the middle of its training."""

from __future__ import annotations

from torch import Tensor, nn

STEPS = 15


class Failing(nn.Sequential):
    def __init__(self, input_shape: tuple[int, ...], num_outputs: int) -> None:
        width = input_shape[0] * input_shape[1] * input_shape[2]
        super().__init__(nn.Flatten(), nn.Linear(width, num_outputs), nn.BatchNorm1d(num_outputs))
        self.steps = 0

    def forward(self, x: Tensor) -> Tensor:
        self.steps += self.training
        if self.steps > STEPS:
            raise RuntimeError("the disk is full")
        return super().forward(x)


def network(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    return Failing(input_shape, num_outputs)
