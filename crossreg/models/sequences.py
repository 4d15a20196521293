"""Small networks for sequences: convolutions, recurrent networks, a transformer; what follows an end counts nowhere."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.errors import UserError
from crossreg.models.checks import positive, probability
from crossreg.models.init import kaiming_

__all__ = ["cnn1d", "gru", "lstm", "transformer"]

_GROUP = 8  # channels that GroupNorm normalizes together


def cnn1d(*, input_shape: tuple[int, ...], num_outputs: int, width: int = 48, dropout: float = 0.0) -> nn.Module:
    """Three 1-D convolutions with GroupNorm for sequences.

    Args:
        input_shape: `(channels, time)`.
        num_outputs: Width of the last layer.
        width: Channels of every convolution, a multiple of 8.
        dropout: Probability of dropping a value after every convolution; 0 builds no dropout layers.

    Returns:
        A model from `[N, channels, time]`, NaN after the ends of sequences, to `[N, num_outputs]`; time may be another
        than that of `input_shape`.

    Raises:
        UserError: The inputs are not sequences, or an option is out of range.
    """
    channels = _channels("cnn1d", input_shape)
    positive("width of 'cnn1d'", width)
    if width % _GROUP:
        raise UserError(f"width of 'cnn1d' is {width}; it must be a multiple of {_GROUP}")
    probability("dropout of 'cnn1d'", dropout)
    return _Convolutions(channels, num_outputs, width, dropout)


def lstm(
    *, input_shape: tuple[int, ...], num_outputs: int, hidden: int = 64, depth: int = 1, dropout: float = 0.0
) -> nn.Module:
    """LSTM for sequences, with LayerNorm; the mean over time goes into the last layer.

    Args:
        input_shape: `(channels, time)`.
        num_outputs: Width of the last layer.
        hidden: Width of the state.
        depth: Number of layers.
        dropout: Probability of dropping a value after every layer; 0 builds no dropout layers.

    Returns:
        A model from `[N, channels, time]`, NaN after the ends of sequences, to `[N, num_outputs]`; time may be another
        than that of `input_shape`.

    Raises:
        UserError: The inputs are not sequences, or an option is out of range.
    """
    return _recurrent("lstm", nn.LSTM, input_shape, num_outputs, hidden, depth, dropout)


def gru(
    *, input_shape: tuple[int, ...], num_outputs: int, hidden: int = 64, depth: int = 1, dropout: float = 0.0
) -> nn.Module:
    """GRU for sequences, with LayerNorm; the mean over time goes into the last layer.

    Args:
        input_shape: `(channels, time)`.
        num_outputs: Width of the last layer.
        hidden: Width of the state.
        depth: Number of layers.
        dropout: Probability of dropping a value after every layer; 0 builds no dropout layers.

    Returns:
        A model from `[N, channels, time]`, NaN after the ends of sequences, to `[N, num_outputs]`; time may be another
        than that of `input_shape`.

    Raises:
        UserError: The inputs are not sequences, or an option is out of range.
    """
    return _recurrent("gru", nn.GRU, input_shape, num_outputs, hidden, depth, dropout)


def transformer(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    width: int = 64,
    heads: int = 4,
    depth: int = 2,
    dropout: float = 0.0,
) -> nn.Module:
    """Small transformer for sequences: LayerNorm before every block; the mean over time goes into the last layer.

    Args:
        input_shape: `(channels, time)`.
        num_outputs: Width of the last layer.
        width: Of what stands for a step, a multiple of `heads` and even.
        heads: Of every attention.
        depth: Number of blocks.
        dropout: Probability of dropping a value after every block; 0 builds no dropout layers.

    Returns:
        A model from `[N, channels, time]`, NaN after the ends of sequences, to `[N, num_outputs]`; time may be another
        than that of `input_shape`.

    Raises:
        UserError: The inputs are not sequences, or an option is out of range.

    Source:
        Vaswani et al. 2017, arXiv:1706.03762 (attention, positions); Xiong et al. 2020, arXiv:2002.04745 (LayerNorm
        first).
    """
    channels = _channels("transformer", input_shape)
    for name, value in (("width", width), ("heads", heads), ("depth", depth)):
        positive(f"{name} of 'transformer'", value)
    if width % heads or width % 2:
        raise UserError(f"width of 'transformer' is {width}; it must be even and a multiple of its {heads} heads")
    probability("dropout of 'transformer'", dropout)
    return _Transformer(channels, num_outputs, width, heads, depth, dropout)


def _channels(name: str, input_shape: tuple[int, ...]) -> int:
    if len(input_shape) != 2:
        raise UserError(f"{name!r} takes sequences (channels, time), but an example has shape {input_shape}")
    return input_shape[0]


def _recurrent(
    name: str,
    kind: type[nn.LSTM] | type[nn.GRU],
    input_shape: tuple[int, ...],
    num_outputs: int,
    hidden: int,
    depth: int,
    dropout: float,
) -> nn.Module:
    channels = _channels(name, input_shape)
    positive(f"hidden of {name!r}", hidden)
    positive(f"depth of {name!r}", depth)
    probability(f"dropout of {name!r}", dropout)
    return _Recurrent(kind, channels, num_outputs, hidden, depth, dropout)


def _without_padding(x: Tensor) -> tuple[Tensor, Tensor | None]:
    """Return `[N, channels, time]` with zeros after the ends, and which steps count, `[N, time]`; None for all."""
    if x.is_meta:  # which has no values
        return x, None
    ended = x.isnan().any(1)
    if not bool(ended.any()):
        return x, None
    return x.masked_fill(ended[:, None], 0.0), ~ended


def _mean_over_time(x: Tensor, mask: Tensor | None) -> Tensor:
    """Return the mean of `[N, time, C]` over the steps that count."""
    if mask is None:
        return x.mean(1)
    return (x * mask[..., None]).sum(1) / mask.sum(1, keepdim=True)


class _GroupNorm(nn.GroupNorm):
    """Normalizes over the steps that count."""

    def forward(self, x: Tensor, mask: Tensor | None = None) -> Tensor:
        """Return `[N, C, time]`; mask is `[N, time]`."""
        if mask is None:
            return super().forward(x)
        n, channels, steps = x.shape
        inside = mask.view(n, 1, 1, steps).to(x.dtype)
        grouped = x.view(n, self.num_groups, -1, steps)
        count = inside.sum((2, 3), keepdim=True) * grouped.shape[2]
        mean = (grouped * inside).sum((2, 3), keepdim=True) / count
        centred = (grouped - mean) * inside
        variance = centred.square().sum((2, 3), keepdim=True) / count
        normalized = (centred * torch.rsqrt(variance + self.eps)).view(n, channels, steps)
        return normalized * self.weight[:, None] + self.bias[:, None]


class _Convolutions(nn.Module):
    def __init__(self, channels: int, num_outputs: int, width: int, dropout: float) -> None:
        super().__init__()
        for i in range(1, 4):
            self.add_module(f"conv{i}", nn.Conv1d(channels, width, 5, padding=2, bias=False))
            self.add_module(f"norm{i}", _GroupNorm(width // _GROUP, width))
            if dropout:
                self.add_module(f"dropout{i}", nn.Dropout(dropout))
            channels = width
        self.output = nn.Linear(width, num_outputs)
        kaiming_(self, output=self.output)

    def forward(self, x: Tensor) -> Tensor:
        x, mask = _without_padding(x)
        for i in range(1, 4):
            x = self.get_submodule(f"norm{i}")(self.get_submodule(f"conv{i}")(x), mask).relu()
            x = x if mask is None else x * mask[:, None]
            if x.shape[2] > 1:
                x, mask = F.max_pool1d(x, 2), None if mask is None else _halved(mask)
                x = x if mask is None else x * mask[:, None]
            if f"dropout{i}" in self._modules:
                x = self.get_submodule(f"dropout{i}")(x)
        output: Tensor = self.output(_mean_over_time(x.transpose(1, 2), mask))
        return output


def _halved(mask: Tensor) -> Tensor:
    """Return which steps count after pooling two: those of two that count, and the first of a sequence of one."""
    pairs = mask[:, 1::2].clone()
    pairs[:, 0] = True
    return pairs


class _Recurrent(nn.Module):
    def __init__(
        self,
        kind: type[nn.LSTM] | type[nn.GRU],
        channels: int,
        num_outputs: int,
        hidden: int,
        depth: int,
        dropout: float,
    ) -> None:
        super().__init__()
        self.depth = depth
        for i in range(1, depth + 1):
            self.add_module(f"recurrent{i}", kind(channels, hidden, batch_first=True))
            self.add_module(f"norm{i}", nn.LayerNorm(hidden))
            if dropout:
                self.add_module(f"dropout{i}", nn.Dropout(dropout))
            channels = hidden
        self.output = nn.Linear(hidden, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, mask = _without_padding(x)
        x = x.transpose(1, 2)
        # a step knows those before it alone, so what follows an end changes nothing that counts
        for i in range(1, self.depth + 1):
            x = self.get_submodule(f"norm{i}")(self.get_submodule(f"recurrent{i}")(x)[0])
            if f"dropout{i}" in self._modules:
                x = self.get_submodule(f"dropout{i}")(x)
        output: Tensor = self.output(_mean_over_time(x, mask))
        return output


class _Block(nn.Module):
    """Attention and two linear layers, each on what LayerNorm makes of its input, which is added again."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.norm1, self.norm2 = nn.LayerNorm(width), nn.LayerNorm(width)
        self.attend, self.join = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.widen, self.narrow = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.dropout = nn.Dropout(dropout) if dropout else nn.Identity()

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        n, steps, width = x.shape
        q, k, v = self.attend(self.norm1(x)).view(n, steps, 3, self.heads, -1).permute(2, 0, 3, 1, 4)
        scores = q @ k.transpose(2, 3) / math.sqrt(width // self.heads)
        if mask is not None:
            scores = scores.masked_fill(~mask[:, None, None], -math.inf)
        attended = (scores.softmax(3) @ v).transpose(1, 2).reshape(n, steps, width)
        x = x + self.dropout(self.join(attended))
        narrowed: Tensor = self.dropout(self.narrow(F.gelu(self.widen(self.norm2(x)))))
        return x + narrowed


class _Transformer(nn.Module):
    def __init__(self, channels: int, num_outputs: int, width: int, heads: int, depth: int, dropout: float) -> None:
        super().__init__()
        self.embed = nn.Linear(channels, width)
        self.blocks = nn.ModuleList(_Block(width, heads, dropout) for _ in range(depth))
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        x, mask = _without_padding(x)
        x = self.embed(x.transpose(1, 2))
        x = x + _positions(x)
        for block in self.blocks:
            x = block(x, mask)
        output: Tensor = self.output(_mean_over_time(self.norm(x), mask))
        return output


def _positions(x: Tensor) -> Tensor:
    """Return the sines and cosines that tell the steps of `[N, time, width]` apart, `[time, width]`."""
    steps, width = x.shape[1:]
    frequencies = torch.exp(-math.log(10_000.0) * torch.arange(0, width, 2, device=x.device) / width)
    angles = torch.arange(steps, device=x.device)[:, None] * frequencies
    return torch.cat([angles.sin(), angles.cos()], 1).to(x.dtype)
