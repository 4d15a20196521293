"""Batches from tensors in memory: gathered, normalized and augmented a batch at a time, sharded over ranks."""

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.distributed import rank, world_size
from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed

__all__ = ["BatchTransform", "Batches", "Preprocess", "augmentation"]

BatchTransform = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch of stored values `[B, ...]`, with draws of a generator; see `augmentation`."""

# up to this size the data lives on the GPU, which makes a batch one gather instead of a copy over the bus
_RESIDENT_BYTES = 4 * 2**30


class Preprocess(nn.Module):
    """Turns stored values into model inputs: `(x - mean) / std`, whatever their type.

    Args:
        mean: float `[C]` (per channel of `[N, C, H, W]`) or of the shape of one example, in stored units: of bytes,
            0..255.
        std: positive, of the same shape and units.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, mean: Tensor, std: Tensor) -> None:
        super().__init__()
        self.register_buffer("mean", mean.float())
        self.register_buffer("std", std.float())

    def forward(self, x: Tensor) -> Tensor:
        """Return float32 of x's shape; x is `[N, ...]` of any type."""
        shape = (-1, *[1] * (x.ndim - 2)) if self.mean.ndim == 1 else self.mean.shape
        return (x.float() - self.mean.view(shape)) / self.std.view(shape)


class Batches:
    """An iterable of `(x, y)` batches over tensors in memory.

    The order depends on seed and epoch alone and every rank takes its rows of each batch, so N processes see
    together what one would see.

    Args:
        x: `[N, ...]`, any dtype; stays as it is in memory.
        y: `[N, ...]`.
        batch_size: rows in a batch over all ranks, a multiple of their number.
        preprocess: applied to each batch, on its device.
        augment: applied to the stored values before `preprocess`; see `augmentation`.
        shuffle: a new order every epoch.
        drop_last: leave out the incomplete batch at the end of an epoch.
        seed: fixes order and augmentation.
        device: where batches go; data up to 4 GiB is kept on a GPU.

    Raises:
        UserError: x and y of different lengths, no rows, or a batch size that the ranks cannot share.
    """

    sharded = True  # every rank gets its own rows: the rho step does not divide them again

    def __init__(
        self,
        x: Tensor,
        y: Tensor,
        batch_size: int,
        *,
        preprocess: nn.Module | None = None,
        augment: BatchTransform | None = None,
        shuffle: bool = True,
        drop_last: bool = False,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        if len(x) != len(y) or not len(x):
            raise UserError(f"x has {len(x)} rows and y has {len(y)}; they must be equal and not zero")
        if batch_size < 1 or batch_size % world_size():
            raise UserError(f"batch size is {batch_size}; it must be a positive multiple of the {world_size()} workers")
        if drop_last and batch_size > len(x):
            raise UserError(f"batch size is {batch_size}, but there are only {len(x)} examples; use a smaller batch")
        self.device = torch.device(device)
        size = x.numel() * x.element_size()
        resident = self.device.type == "meta" or (self.device.type == "cuda" and size <= _RESIDENT_BYTES)
        home = self.device if resident else torch.device("cpu")
        self.x, self.y = x.to(home), y.to(home)
        self.batch_size, self.shuffle, self.drop_last, self.seed = batch_size, shuffle, drop_last, seed
        self.preprocess = None if preprocess is None else preprocess.to(self.device)
        self.augment = augment
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        return len(self.x) // self.batch_size if self.drop_last else -(-len(self.x) // self.batch_size)

    @property
    def num_examples(self) -> int:
        """Rows over all ranks."""
        return len(self.x)

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch."""
        return self.starting_at(0)

    def starting_at(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the epoch from its `batch`-th batch on, without touching the ones before."""
        order = torch.arange(len(self.x))
        if self.shuffle:
            generator = torch.Generator().manual_seed(derive_seed(self.seed, "order", self.epoch))
            order = torch.randperm(len(self.x), generator=generator)
        for index in range(batch, len(self)):
            rows = order[index * self.batch_size : (index + 1) * self.batch_size]
            mine = rows[rank() * len(rows) // world_size() : (rank() + 1) * len(rows) // world_size()]
            yield self._gather(mine.to(self.x.device), index)

    @torch.no_grad()
    def _gather(self, rows: Tensor, index: int) -> tuple[Tensor, Tensor]:
        x = self.x[rows].to(self.device, non_blocking=True)
        y = self.y[rows].to(self.device, non_blocking=True)
        if self.augment is not None:
            generator = torch.Generator(self.device)
            generator.manual_seed(derive_seed(self.seed, "augment", self.epoch, index, rank()))
            x = self.augment(x, generator)
        return (x if self.preprocess is None else self.preprocess(x)), y


def augmentation(name: str) -> BatchTransform | None:
    """Return a batched image augmentation: "none", "flip" (left-right) or "crop-flip" (4 pixels of zeros around).

    Raises:
        UserError: another name.
    """
    known: dict[str, BatchTransform | None] = {
        "none": None,
        "flip": _flip,
        "crop-flip": lambda x, g: _flip(_crop(x, g), g),
    }
    if name not in known:
        raise UserError(f"augmentation is {name!r}; allowed are {', '.join(known)}")
    return known[name]


def _flip(x: Tensor, generator: torch.Generator) -> Tensor:
    chosen = torch.rand(len(x), generator=generator, device=x.device) < 0.5
    return torch.where(chosen.view(-1, 1, 1, 1), x.flip(-1), x)


def _crop(x: Tensor, generator: torch.Generator, padding: int = 4) -> Tensor:
    n, _, height, width = x.shape
    padded = F.pad(x, (padding,) * 4)
    dy, dx = torch.randint(0, 2 * padding + 1, (2, n, 1), generator=generator, device=x.device)
    rows = (dy + torch.arange(height, device=x.device)).view(n, 1, height, 1)
    columns = (dx + torch.arange(width, device=x.device)).view(n, 1, 1, width)
    examples = torch.arange(n, device=x.device).view(n, 1, 1, 1)
    channels = torch.arange(x.shape[1], device=x.device).view(1, -1, 1, 1)
    return padded[examples, channels, rows, columns]
