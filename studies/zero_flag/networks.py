"""Small networks for sequences and text, so that a claim about training rests on more than images and tables."""

from __future__ import annotations

import torch
from torch import Tensor, nn

__all__ = ["conv1d", "transformer"]


def conv1d(*, input_shape: tuple[int, ...], num_outputs: int, width: int = 48, dropout: float = 0.0) -> nn.Module:
    """Three 1-D convolutions with GroupNorm for sequences `[N, channels, time]`.

    Args:
        input_shape: `(channels, time)`.
        num_outputs: width of the last layer.
        width: channels of every convolution, a multiple of 8.
        dropout: probability after every block.
    """
    channels, _ = input_shape
    layers: list[nn.Module] = []
    for _ in range(3):
        layers += [nn.Conv1d(channels, width, 5, padding=2, bias=False), nn.GroupNorm(8, width), nn.ReLU()]
        layers += [nn.MaxPool1d(2), nn.Dropout(dropout)]
        channels = width
    return nn.Sequential(*layers, nn.AdaptiveAvgPool1d(1), nn.Flatten(), nn.Linear(width, num_outputs))


class _Transformer(nn.Module):
    def __init__(
        self, length: int, num_tokens: int, num_outputs: int, width: int, dropout: float, norm_first: bool
    ) -> None:
        super().__init__()
        self.token = nn.Embedding(num_tokens, width, padding_idx=0)
        self.place = nn.Parameter(0.02 * torch.randn(length, width))
        block = nn.TransformerEncoderLayer(width, 4, 2 * width, dropout, batch_first=True, norm_first=norm_first)
        # its fast path differs between training and evaluation in what modules are called
        self.blocks = nn.TransformerEncoder(block, 2, enable_nested_tensor=False)
        self.norm = nn.LayerNorm(width)
        self.output = nn.Linear(width, num_outputs)

    def forward(self, tokens: Tensor) -> Tensor:
        """Return logits `[N, num_outputs]` of tokens `[N, up to length]`; 0 is padding."""
        padding = tokens == 0
        h = self.norm(self.blocks(self.token(tokens) + self.place[: tokens.shape[1]], src_key_padding_mask=padding))
        kept = (~padding).unsqueeze(-1).to(h.dtype)
        out: Tensor = self.output((h * kept).sum(1) / kept.sum(1).clamp_min(1))
        return out


def transformer(
    *,
    input_shape: tuple[int, ...],
    num_outputs: int,
    num_tokens: int = 64,
    width: int = 48,
    dropout: float = 0.0,
    norm_first: bool = True,
) -> nn.Module:
    """Transformer of two layers with LayerNorm for tokens `[N, length]`, 0 where there is none.

    Args:
        input_shape: `(length,)`.
        num_outputs: width of the last layer.
        num_tokens: different tokens, padding included.
        width: of the embedding, a multiple of 4.
        dropout: probability in every layer.
        norm_first: LayerNorm comes before attention and linear layers (pre-norm), and not after the sums (post-norm).
    """
    return _Transformer(input_shape[0], num_tokens, num_outputs, width, dropout, norm_first)
