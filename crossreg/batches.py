"""Batches, normalized and augmented, sharded over ranks: of tensors in memory, or of what is read while training."""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterator
from contextlib import closing

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from crossreg.core.distributed import rank, world_size
from crossreg.core.errors import UserError
from crossreg.core.random import derive_seed

__all__ = ["BatchTransform", "Batches", "Preprocess", "Rows", "StreamedBatches", "augmentation", "epoch_order"]

BatchTransform = Callable[[Tensor, torch.Generator], Tensor]
"""Changes a batch of stored values `[B, ...]`, with draws of a generator; see `augmentation`."""

Rows = Generator[tuple[Tensor, Tensor], None, None]
"""Rows of x and y, any number at a time; closed where no more are wanted."""

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
        self._prepare(len(y), batch_size, preprocess, augment, drop_last, seed, device)
        size = x.numel() * x.element_size()
        resident = self.device.type == "meta" or (self.device.type == "cuda" and size <= _RESIDENT_BYTES)
        home = self.device if resident else torch.device("cpu")
        self.x, self.y, self.shuffle = x.to(home), y.to(home), shuffle

    def _prepare(
        self,
        num_examples: int,
        batch_size: int,
        preprocess: nn.Module | None,
        augment: BatchTransform | None,
        drop_last: bool,
        seed: int,
        device: torch.device | str,
    ) -> None:
        """Keep what does not depend on where rows come from."""
        if batch_size < 1 or batch_size % world_size():
            raise UserError(f"batch size is {batch_size}; it must be a positive multiple of the {world_size()} workers")
        if drop_last and batch_size > num_examples:
            raise UserError(
                f"batch size is {batch_size}, but there are only {num_examples} examples; use a smaller batch"
            )
        self.device = torch.device(device)
        self._num_examples = num_examples
        self.batch_size, self.drop_last, self.seed = batch_size, drop_last, seed
        self.preprocess = None if preprocess is None else preprocess.to(self.device)
        self.augment = augment
        self.epoch = 0

    def __len__(self) -> int:
        """Return the number of batches in an epoch."""
        count, size = self.num_examples, self.batch_size
        return count // size if self.drop_last else -(-count // size)

    @property
    def num_examples(self) -> int:
        """Rows over all ranks."""
        return self._num_examples

    def set_epoch(self, epoch: int) -> None:
        """Choose the order of the next iteration."""
        self.epoch = epoch

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the batches of one epoch."""
        return self.starting_at(0)

    def starting_at(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the epoch from its `batch`-th batch on, without touching the ones before."""
        count = self.num_examples
        order = epoch_order(count, self.seed, self.epoch) if self.shuffle else torch.arange(count)
        for index in range(batch, len(self)):
            rows = order[index * self.batch_size : (index + 1) * self.batch_size]
            mine = rows[rank() * len(rows) // world_size() : (rank() + 1) * len(rows) // world_size()]
            mine = mine.to(self.x.device)
            yield self._made(self.x[mine], self.y[mine], index)

    @torch.no_grad()
    def _made(self, x: Tensor, y: Tensor, index: int) -> tuple[Tensor, Tensor]:
        """Return this rank's rows of a batch as the model takes them."""
        x, y = x.to(self.device, non_blocking=True), y.to(self.device, non_blocking=True)
        if self.augment is not None:
            generator = torch.Generator(self.device)
            generator.manual_seed(derive_seed(self.seed, "augment", self.epoch, index, rank()))
            x = self.augment(x, generator)
        return (x if self.preprocess is None else self.preprocess(x)), y


class StreamedBatches(Batches):
    """Batches of rows that are read while training, in an order that the reader decides; incomplete ones are left out.

    Args:
        y: targets of all rows, in any order: what is asked about them without reading them.
        batch_size: rows in a batch over all ranks, a multiple of their number.
        read: called with an epoch and a batch, yields this rank's rows of the epoch from that batch on: as many of
            each batch as every other rank has. It is closed where no more are wanted.
        preprocess: as of `Batches`.
        augment: as of `Batches`.
        seed: fixes augmentation.
        device: where batches go.

    Raises:
        UserError: a batch size that the ranks cannot share, or of more than all rows.
    """

    def __init__(
        self,
        y: Tensor,
        batch_size: int,
        read: Callable[[int, int], Rows],
        *,
        preprocess: nn.Module | None = None,
        augment: BatchTransform | None = None,
        seed: int = 0,
        device: torch.device | str = "cpu",
    ) -> None:
        self._prepare(len(y), batch_size, preprocess, augment, True, seed, device)
        self.y, self.read = y, read

    def starting_at(self, batch: int) -> Iterator[tuple[Tensor, Tensor]]:
        """Iterate over the epoch from its `batch`-th batch on; what comes before need not be read."""
        with closing(self.read(self.epoch, batch)) as rows:
            found = _cut(rows, self.batch_size // world_size())
            for index in range(batch, len(self)):
                yield self._made(*next(found), index)


def _cut(rows: Rows, size: int) -> Rows:
    """Yield the rows of a stream, so many at a time."""
    xs: list[Tensor] = []
    ys: list[Tensor] = []
    held = 0
    for x, y in rows:
        start = 0
        while held + len(y) - start >= size:
            end = start + size - held
            xs, ys = [*xs, x[start:end]], [*ys, y[start:end]]
            # most batches lie in one part of the stream, and are views of it
            yield (xs[0], ys[0]) if len(xs) == 1 else (torch.cat(xs), torch.cat(ys))
            xs, ys, held, start = [], [], 0, end
        if start < len(y):
            xs, ys, held = [*xs, x[start:]], [*ys, y[start:]], held + len(y) - start


def epoch_order(count: int, seed: int, epoch: int) -> Tensor:
    """Return the order of an epoch, int64 `[count]`, a permutation that depends on seed and epoch alone."""
    generator = torch.Generator().manual_seed(derive_seed(seed, "order", epoch))
    return torch.randperm(count, generator=generator)


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
