"""Training data on disk to a worker: read by Ray Data in tasks beside the training, a few pieces ahead of it.

Every worker has a pipeline of its own for its part of an epoch, whose pieces (`crossreg.services.data.stream`) are
known before any is read. So their order depends on nothing but seed, epoch and number of workers, and a training that
goes on from a checkpoint begins at the piece where it was. How far reading may run ahead is bounded by the memory of
Ray's object store, whatever the size of the data.
"""

from __future__ import annotations

import logging
import pickle
import warnings
from collections.abc import Callable, Iterator
from itertools import islice
from typing import Any

import numpy as np
import torch

from crossreg.batches import Rows
from crossreg.core.distributed import rank, world_size
from crossreg.core.errors import UserError
from crossreg.services.data import Part, Piece, Stream

__all__ = ["StreamError", "feed"]

_AT_ONCE = 256
"""Pieces of a pipeline, after which another begins: their descriptions, paths among them, are held while it runs."""
_STORE_SHARE = 0.4
"""Of what is free of the object store, for what all workers' pipelines have read ahead."""


class StreamError(UserError):
    """Data that could not be read while training: only the worker that read them knows."""


def feed(stream: Stream, batch_size: int, seed: int, targets: Callable[[np.ndarray], np.ndarray]) -> Any:
    """Return what `crossreg.batches.StreamedBatches` reads with, on this process's rank.

    Args:
        stream: the split.
        batch_size: rows in a batch over all ranks.
        seed: fixes the order.
        targets: turns those of a split into the model's.
    """

    def read(epoch: int, batch: int) -> Rows:
        pieces = stream.pieces(Part(seed, epoch, batch, batch_size, rank(), world_size()))
        while some := list(islice(pieces, _AT_ONCE)):
            for x, y in _by_ray_data(some):
                with warnings.catch_warnings():
                    # an array in Ray's object store is read-only, and nothing here writes into the data
                    warnings.filterwarnings("ignore", message="The given NumPy array is not writable")
                    yield torch.from_numpy(x), torch.from_numpy(targets(y))

    return read


def _by_ray_data(pieces: list[Piece]) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yield x and y of pieces in their order, read in Ray's tasks.

    Raises:
        StreamError: one could not be read.
    """
    import ray.data

    rows = [{"piece": pickle.dumps(piece)} for piece in pieces]
    _set_up(ray.data.DataContext.get_current())
    found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(_read, batch_size=None)
    for block in found.iter_batches(batch_size=None, batch_format="numpy"):
        if "mistake" in block:
            raise StreamError(str(block["mistake"][0]))
        yield block["x"], block["y"]


def _read(block: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """Read a piece in a task; what is wrong with the data comes back as text, for a task that fails is tried again."""
    piece: Piece = pickle.loads(block["piece"][0])
    try:
        return {"x": piece.read(), "y": piece.y}
    except UserError as error:
        return {"mistake": np.array([str(error)])}


def _set_up(context: Any) -> None:
    """Keep a pipeline in order, quiet, and within this worker's share of CPUs and memory."""
    import ray
    from ray.data import ExecutionResources

    logging.getLogger("ray.data").setLevel(logging.ERROR)
    context.enable_progress_bars = False
    context.execution_options.preserve_order = True
    free = ray.available_resources().get("object_store_memory", 0.0)
    context.execution_options.resource_limits = ExecutionResources(
        object_store_memory=_STORE_SHARE * free / world_size()
    )
