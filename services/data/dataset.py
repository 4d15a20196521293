"""The loaded data as the rest of the project sees it, and its fingerprint."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np

from crossreg.inputs import Array, Inputs
from crossreg.services.data.stream import Streams

__all__ = ["Dataset", "Split", "Task", "fingerprint"]

Task = Literal["classification", "regression"]


# Comparing arrays with == has no single truth value, so neither class defines equality; compare fingerprints.
@dataclass(frozen=True, eq=False)
class Split:
    """Examples and targets, row by row.

    Attributes:
        x: uint8 [N, C, H, W] for images of bytes, int64 [N, ...] for whole numbers, else float32 [N, ...]; sequences
            are [N, channels, time], NaN after their ends.
        y: int64 [N], class indices, or float64 [N, outputs] for regression, in the target's units.
    """

    x: np.ndarray
    y: np.ndarray

    def __len__(self) -> int:
        return len(self.x)


@dataclass(frozen=True, eq=False)
class Dataset:
    """Three disjoint splits and what is needed to standardise them.

    Attributes:
        name: As the user gave it.
        task: Classification or regression.
        classes: Class names by index; empty for regression.
        train: What the weights are trained on; where that is on disk, a sample of it.
        reg: What the regularization is trained on; has no rows when no regularization split was asked for.
        test: What is reported.
        mean: float32 [C], mean of the train split over everything but axis 1: per channel of images, in 0..255 for
            bytes, of sequences, or per feature; zeros where nothing is to be standardized.
        std: float32, standard deviation likewise; 1 where the train split is constant.
        fingerprint: 16 hex digits over content and split, see `fingerprint`.
        inputs: How rows, arrays or files of the same kind become x: what an exported model needs to know.
        example: Two examples before that: a pandas DataFrame of a table's rows, or an array as it is stored.
        target_mean: float64 [outputs], of the train split; None for classification.
        target_std: float64 [outputs], likewise; 1 where constant.
        standardized: Whether a model gets `(x - mean) / std`; False is asked for by `raw`.
        missing: Rows of a table without a value, by column.
        skipped: Files that were not read, by ending.
        notes: What was guessed, left out or decided by the values, in sentences.
        stream: The training split where it is on disk and read while training; None where it is in memory.
    """

    name: str
    task: Task
    classes: tuple[str, ...]
    train: Split
    reg: Split
    test: Split
    mean: np.ndarray
    std: np.ndarray
    fingerprint: str
    inputs: Inputs = field(default_factory=Array)
    example: Any = None
    target_mean: np.ndarray | None = None
    target_std: np.ndarray | None = None
    standardized: bool = True
    missing: Mapping[str, int] = field(default_factory=dict)
    skipped: Mapping[str, int] = field(default_factory=dict)
    notes: tuple[str, ...] = ()
    stream: Streams | None = None

    @property
    def num_train(self) -> int:
        """Training examples, in memory or on disk."""
        return len(self.train) if self.stream is None else len(self.stream.train)

    @property
    def train_y(self) -> np.ndarray:
        """Targets of all training examples."""
        return self.train.y if self.stream is None else self.stream.train.y

    @property
    def input_shape(self) -> tuple[int, ...]:
        """Shape of one example, without the batch axis."""
        return tuple(self.train.x.shape[1:])

    @property
    def num_outputs(self) -> int:
        """Number of classes, or of regression targets."""
        return len(self.classes) if self.task == "classification" else int(self.train.y.shape[1])


def fingerprint(task: Task, classes: Sequence[str], seed: int, splits: Sequence[Split]) -> str:
    """Return 16 hex digits that identify content and split on any machine.

    Args:
        task: Classification or regression.
        classes: Class names by index.
        seed: The split's seed, so that two seeds differ even where few examples leave them the same split.
        splits: The splits in a fixed order; values, their order, shapes and dtypes all count.
    """
    digest = hashlib.sha256(json.dumps([task, list(classes), seed]).encode())
    for split in splits:
        for array in (split.x, split.y):
            little = np.ascontiguousarray(array, dtype=array.dtype.newbyteorder("<"))
            digest.update(f"{little.dtype.str}{little.shape}".encode())
            # hashlib takes one-dimensional buffers only; the view avoids the copy that tobytes() makes.
            digest.update(little.reshape(-1).view(np.uint8).data)
    return digest.hexdigest()[:16]
