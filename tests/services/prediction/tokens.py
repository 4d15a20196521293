"""A network of one's own that takes whole numbers, as token models do."""

from __future__ import annotations

from torch import Tensor, nn


class Tokens(nn.Module):
    """The mean of embeddings, normalized, and a linear layer."""

    def __init__(self, num_outputs: int) -> None:
        super().__init__()
        self.embedding = nn.Embedding(9, 8)
        self.norm = nn.LayerNorm(8)
        self.head = nn.Linear(8, num_outputs)

    def forward(self, x: Tensor) -> Tensor:
        """Return logits `[N, outputs]` for int64 `[N, T]`."""
        scores: Tensor = self.head(self.norm(self.embedding(x).mean(1)))
        return scores


def model(input_shape: tuple[int, ...], num_outputs: int) -> nn.Module:
    """Return the network."""
    return Tokens(num_outputs)
