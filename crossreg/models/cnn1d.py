"""The small convolutional network for sequences."""

from __future__ import annotations

from collections import OrderedDict

from torch import Tensor, nn

from crossreg.core.errors import UserError, nearest
from crossreg.models.checks import positive, probability
from crossreg.models.init import kaiming_

__all__ = ["cnn1d"]

TIMES = ("last", "first")
_GROUP = 8  # channels that GroupNorm normalizes together


class _TimeLast(nn.Module):
    """`[N, time, channels]` to `[N, channels, time]`."""

    def forward(self, x: Tensor) -> Tensor:
        return x.transpose(1, 2)


def cnn1d(
    *, input_shape: tuple[int, ...], num_outputs: int, width: int = 48, time: str = "last", dropout: float = 0.0
) -> nn.Module:
    """Three 1-D convolutions with GroupNorm for sequences of one length.

    Args:
        input_shape: `(channels, time)`, or `(time, channels)`; see `time`.
        num_outputs: Width of the last layer.
        width: Channels of every convolution, a multiple of 8.
        time: Which axis of an example is time, `"last"` or `"first"`.
        dropout: Probability of dropping a value after every convolution; 0 builds no dropout layers.

    Returns:
        A model from `[N, *input_shape]` to `[N, num_outputs]`.

    Raises:
        UserError: The inputs are not sequences, or an option is out of range.
    """
    if len(input_shape) != 2:
        raise UserError(f"'cnn1d' takes sequences (channels, time), but an example has shape {input_shape}")
    if time not in TIMES:
        raise UserError(f"time of 'cnn1d' is {time!r}{nearest(str(time), TIMES)}; allowed are {', '.join(TIMES)}")
    positive("width of 'cnn1d'", width)
    if width % _GROUP:
        raise UserError(f"width of 'cnn1d' is {width}; it must be a multiple of {_GROUP}")
    probability("dropout of 'cnn1d'", dropout)
    channels, length = input_shape if time == "last" else reversed(input_shape)
    layers: OrderedDict[str, nn.Module] = OrderedDict()
    if time == "first":
        layers["transpose"] = _TimeLast()
    for i in range(1, 4):
        layers[f"conv{i}"] = nn.Conv1d(channels, width, 5, padding=2, bias=False)
        layers[f"norm{i}"] = nn.GroupNorm(width // _GROUP, width)
        layers[f"relu{i}"] = nn.ReLU()
        if length > 1:
            layers[f"pool{i}"] = nn.MaxPool1d(2)
            length //= 2
        if dropout:
            layers[f"dropout{i}"] = nn.Dropout(dropout)
        channels = width
    output = nn.Linear(width, num_outputs)
    layers |= {"average": nn.AdaptiveAvgPool1d(1), "flatten": nn.Flatten(), "output": output}
    return kaiming_(nn.Sequential(layers), output=output)
