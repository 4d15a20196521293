"""Batches cut from a stream of rows."""

from __future__ import annotations

import pytest
import torch

from crossreg.batches import Batches, Preprocess, Rows, StreamedBatches, augmentation
from crossreg.core.errors import UserError

X = torch.arange(53 * 3 * 16, dtype=torch.int64).remainder(251).to(torch.uint8).view(53, 3, 4, 4)
Y = torch.arange(53)


class Reader:
    """Yields rows in parts of given lengths, from a batch on, and counts what is open."""

    def __init__(self, sizes: list[int], batch_size: int = 8) -> None:
        self.sizes, self.batch_size = sizes, batch_size
        self.opened = self.closed = self.parts = 0

    def __call__(self, epoch: int, batch: int) -> Rows:
        self.opened += 1
        try:
            start = batch * self.batch_size
            x, y = X.roll(epoch, 0)[start:48], Y.roll(epoch, 0)[start:48]
            for first, second in zip(x.split(self._lengths(len(x))), y.split(self._lengths(len(y))), strict=True):
                self.parts += 1
                yield first, second
        finally:
            self.closed += 1

    def _lengths(self, count: int) -> list[int]:
        found: list[int] = []
        while (left := count - sum(found)) > 0:
            found.append(min(left, self.sizes[len(found) % len(self.sizes)]))
        return found


@pytest.mark.parametrize("sizes", [[48], [8], [3], [1, 20, 2], [7, 9]])
@pytest.mark.parametrize("batch", [0, 4])
def test_batches_do_not_depend_on_how_rows_arrive(sizes: list[int], batch: int) -> None:
    batches = StreamedBatches(Y, 8, Reader(sizes))
    assert len(batches) == 6
    assert batches.num_examples == 53
    batches.set_epoch(2)
    found = list(batches.starting_at(batch))
    assert [len(y) for _, y in found] == [8] * (6 - batch)
    assert torch.equal(torch.cat([x for x, _ in found]), X.roll(2, 0)[8 * batch : 48])
    assert torch.equal(torch.cat([y for _, y in found]), Y.roll(2, 0)[8 * batch : 48])


def test_they_are_normalized_and_augmented_as_those_in_memory() -> None:
    options = {
        "preprocess": Preprocess(torch.ones(3), torch.full((3,), 2.0)),
        "augment": augmentation("flip"),
        "seed": 3,
    }
    streamed = StreamedBatches(Y, 8, Reader([5]), **options)  # type: ignore[arg-type]
    memory = Batches(X, Y, 8, shuffle=False, drop_last=True, **options)  # type: ignore[arg-type]
    for one, other in zip(streamed, memory, strict=True):
        assert torch.equal(one[0], other[0])
        assert torch.equal(one[1], other[1])


def test_a_reader_is_closed_when_no_more_is_wanted() -> None:
    reader = Reader([5])
    for index, _ in enumerate(StreamedBatches(Y, 8, reader)):
        if index == 1:
            break
    assert (reader.opened, reader.closed) == (1, 1)
    assert reader.parts == 4  # of ten
    list(StreamedBatches(Y, 8, reader))
    assert (reader.opened, reader.closed) == (2, 2)


def test_a_batch_of_more_than_all_rows_is_refused() -> None:
    with pytest.raises(UserError, match="batch size is 60, but there are only 53 examples"):
        StreamedBatches(Y, 60, Reader([5]))
