"""Predicting what lies in a file: a table's rows, arrays, or images; and scoring where the right answers are there."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.inputs import Array, Sequence, Table
from crossreg.services.data.arrays import read_arrays
from crossreg.services.data.decode import Progress, read_image
from crossreg.services.data.images import image_files
from crossreg.services.data.load import ARRAYS, SERIES, TABLES
from crossreg.services.data.sequences import check_lengths, read_ts
from crossreg.services.data.tables import read_frame
from crossreg.services.data.units import TargetUnit
from crossreg.services.prediction.scores import scored
from crossreg.services.serving.span import SpanCheck

if TYPE_CHECKING:
    import pandas as pd

    from crossreg.services.serving.loading import LoadedModel

__all__ = ["Predicted", "predict_file"]


@dataclass(frozen=True, eq=False)
class Predicted:
    """Predictions of a file.

    Attributes:
        frame: a row an input, in the file's order: `label` and a probability a class, or `mean` and `std`; of image
            files, `file` before them.
        scores: where the file held the right answers: accuracy, NLL, Brier score and ECE, or RMSE; else empty.
        notes: what was guessed or not used, in sentences.
        warnings: that inputs lie far from training's.
        rmse_unit: what stands behind the RMSE of a regression, in words; empty where that is not known.
    """

    frame: pd.DataFrame
    scores: dict[str, float]
    notes: list[str]
    warnings: list[str]
    rmse_unit: str = ""


@dataclass(frozen=True)
class _Examples:
    """What a file holds, as the model takes it: N examples, read a batch at a time."""

    count: int
    batch: Callable[[int, int], np.ndarray]
    names: list[str] | None = None
    answers: Any = None


def predict_file(
    model: LoadedModel,
    path: Path,
    *,
    target: str | None = None,
    keys: Mapping[str, str] | None = None,
    samples: int = 16,
    seed: int = 0,
    batch_size: int = 256,
    progress: Progress | None = None,
) -> Predicted:
    """Predict what lies in a file or a folder of images.

    Args:
        model: the predictor.
        path: of a kind that the model takes.
        target: column of the right answers; None takes the name that it had in training.
        keys: names of the arrays in an .npz.
        samples: noise draws averaged.
        seed: fixes them.
        batch_size: examples read and predicted at a time.
        progress: called with (examples done, examples in all).

    Raises:
        UserError: a file that cannot be read, or of a kind that the model does not take.
    """
    import pandas as pd

    notes: list[str] = []
    examples = _examples(model, path, target, dict(keys or {}), notes)
    means, spreads, check = [], [], SpanCheck(model.exported)
    for start, end in _slices(examples.count, batch_size):
        x = examples.batch(start, end)
        check.add(x)
        mean, spread = model.predict(x, samples, seed)
        means.append(mean)
        spreads.append(spread)
        if progress is not None:
            progress(end, examples.count)
    mean, spread = np.concatenate(means), np.concatenate(spreads)
    answers = model.exported.answers(mean, spread)
    frame = pd.DataFrame(({} if examples.names is None else {"file": examples.names}) | answers)
    scores = {} if examples.answers is None else scored(model.exported, mean, examples.answers, notes)
    return Predicted(frame, scores, notes, check.warnings(), _rmse_unit(model.exported))


def _rmse_unit(exported: Any) -> str:
    if exported.target_std is None:
        return ""
    name = exported.inputs.target if isinstance(exported.inputs, Table) else ""
    # over several targets it is a mean in each one's own unit
    return TargetUnit(exported.target_std.tolist(), name).text if exported.num_outputs == 1 else ""


def _slices(count: int, size: int) -> Iterator[tuple[int, int]]:
    for start in range(0, count, size):
        yield start, min(start + size, count)


def _examples(model: LoadedModel, path: Path, target: str | None, keys: dict[str, str], notes: list[str]) -> _Examples:
    exported = model.exported
    if not path.exists():
        raise UserError(f"{path}: no such file or folder")
    suffix = path.suffix.lower()
    if path.is_file() and suffix in TABLES:
        if not isinstance(exported.inputs, Table):
            raise _other_kind(path, "a table", exported)
        return _rows(exported, path, target, notes)
    if target is not None:
        raise UserError(f"--target names a column of a table ({', '.join(TABLES)}); {path} is none")
    if path.is_file() and suffix in ARRAYS:
        return _arrays(exported, path, keys)
    if path.is_file() and suffix in SERIES and isinstance(exported.inputs, Sequence):
        return _series(exported, path)
    if not exported.images or exported.input_shape[0] not in (1, 3):
        raise _other_kind(path, "a folder" if path.is_dir() else f"a file ending in {suffix!r}", exported)
    return _images(exported, path, notes)


def _other_kind(path: Path, what: str, exported: Any) -> UserError:
    if isinstance(exported.inputs, Table):
        names = ", ".join(column.name for column in exported.inputs.columns[:10])
        takes = f"rows of a table ({', '.join(TABLES)}) with columns {names}"
    else:
        shape, images = exported.stored_shape, ", or images" if exported.images else ""
        takes = f"arrays ({', '.join(ARRAYS)}) of shape (N, {', '.join(map(str, shape))}){images}"
    return UserError(f"{path} is {what}; this model takes {takes}")


def _rows(exported: Any, path: Path, target: str | None, notes: list[str]) -> _Examples:
    frame = read_frame(path, notes)
    if not len(frame):
        raise UserError(f"{path}: the table has no rows")
    if target is not None and target not in frame.columns:
        raise UserError(f"{path}: no column {target!r}; the columns are: {', '.join(frame.columns[:50])}")
    answers = target or exported.inputs.target
    try:
        x = exported.encode(frame.drop(columns=[answers], errors="ignore"), notes)
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    found = frame[answers] if answers in frame.columns else None
    return _Examples(len(x), lambda start, end: x[start:end], answers=found)


def _arrays(exported: Any, path: Path, keys: dict[str, str]) -> _Examples:
    import pandas as pd

    found = read_arrays(path, keys)
    x: Any = found["x"]
    if not len(x):
        raise UserError(f"{path}: x is empty, shape {x.shape}")
    if isinstance(exported.inputs, Sequence) and "lengths" in found:
        x = _until(path, x, found["lengths"], exported.inputs)
    try:
        exported.encode(x[:1])  # what is wrong with all is said before any is predicted
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    y = found.get("y")
    answers = None
    if y is not None:
        if len(y) != len(x):
            raise UserError(f"{path}: x has {len(x)} rows and y has {len(y)}; they must be equal")
        if y.ndim not in (1, 2):
            raise UserError(f"{path}: y has shape {y.shape}; right answers are [N] or [N, outputs]")
        y = np.char.decode(y, "utf-8") if y.dtype.kind == "S" else y
        y = y[:, None] if y.ndim == 1 else y
        answers = pd.Series(y[:, 0]) if y.shape[1] == 1 else pd.DataFrame(y)

    def batch(start: int, end: int) -> np.ndarray:
        encoded = exported.encode(x[start:end])
        # a sequence's NaN, which stands for what comes after its end, was looked at there
        return encoded if isinstance(exported.inputs, Sequence) else _finite(path, encoded, start)

    return _Examples(len(x), batch, answers=answers)


def _until(path: Path, x: np.ndarray, lengths: np.ndarray, inputs: Sequence) -> list[np.ndarray]:
    """Return sequences as they are stored, each to its end."""
    first = x.ndim == 2 or inputs.time == "first"
    check_lengths(str(path), "x", lengths, len(x), x.shape[1] if first else x.shape[-1])
    return [row[:length] if first else row[:, :length] for row, length in zip(x, lengths, strict=True)]


def _series(exported: Any, path: Path) -> _Examples:
    import pandas as pd

    sequences, answers = read_ts(path)
    first = exported.inputs.time == "first"
    stored = [one.T if first else one for one in sequences]
    try:
        exported.encode(stored[:1])
    except UserError as error:
        raise UserError(f"{path}: {error}") from None
    return _Examples(len(stored), lambda start, end: exported.encode(stored[start:end]), answers=pd.Series(answers))


def _finite(path: Path, x: np.ndarray, start: int) -> np.ndarray:
    if x.dtype.kind == "f" and not np.isfinite(x).all():
        row = start + int(np.argmin(np.isfinite(x.reshape(len(x), -1)).all(1)))
        raise UserError(f"{path}: x[{row}] holds NaN or infinity; values must be finite float32 numbers")
    return x


def _images(exported: Any, path: Path, notes: list[str]) -> _Examples:
    import pandas as pd

    channels, height, width = exported.input_shape
    assert isinstance(exported.inputs, Array)
    files = [str(path)] if path.is_file() else image_files(path, notes)
    if not files:
        raise UserError(f"{path}: the folder holds no image")

    def batch(start: int, end: int) -> np.ndarray:
        mode = "L" if channels == 1 else "RGB"
        images = [read_image(file, (width, height), mode, resize=exported.inputs.resize) for file in files[start:end]]
        stacked = np.stack(images)
        return stacked[:, None] if channels == 1 else np.ascontiguousarray(stacked.transpose(0, 3, 1, 2))

    names = [os.path.relpath(file, path if path.is_dir() else path.parent) for file in files]
    # below class folders, as training had them, each image says what it is
    folders = [
        next((part for part in reversed(Path(name).parts[:-1]) if part in exported.labels), None) for name in names
    ]
    answers = pd.Series(folders) if all(folders) and exported.task == "classification" else None
    return _Examples(len(files), batch, names, answers)
