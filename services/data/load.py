"""From a configuration to a dataset: find the loader, check, split, measure."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np

from crossreg.core.errors import UserError, nearest
from crossreg.core.paths import local_path
from crossreg.inputs import Inputs, Sequence
from crossreg.inputs.sequence import lengths_of
from crossreg.services.data.bundled import BUNDLED, load_bundled
from crossreg.services.data.config import DataConfig, known, require_fitting
from crossreg.services.data.dataset import Dataset, Split, Task, fingerprint
from crossreg.services.data.decode import Progress
from crossreg.services.data.function import is_function, load_function
from crossreg.services.data.moments import moments
from crossreg.services.data.raw import Raw, validate
from crossreg.services.data.sequences import SEQUENCES, cut, load_sequences, load_ts
from crossreg.services.data.split import Indices, make_indices
from crossreg.services.data.streamed import can_stream, load_streamed
from crossreg.services.data.vision import VISION, load_vision

__all__ = ["load_data"]

ARRAYS = (".npz", ".npy")
SERIES = (".ts",)
TABLES = (".csv", ".tsv", ".parquet")
_FILES = ARRAYS + SERIES + TABLES
MANY = 5  # notes on rare classes


def load_data(config: DataConfig, progress: Progress | None = None, *, may_stream: bool = False) -> Dataset:
    """Load, check and split a dataset.

    Args:
        config: What to load and how to split it.
        progress: Called with (images done, images in all) while an image folder is decoded.
        may_stream: Whether the caller can train on what is read from disk; where not, everything is in memory.

    Returns:
        Three disjoint splits. Train and reg are shuffled, as is a test split drawn here; a test split that
        comes with the data keeps its order.

    Raises:
        UserError: The data cannot be found, read or split as asked.
    """
    if config.stream and not may_stream:
        raise UserError(
            f"{config.name}: --stream is for `crossreg train` alone; what trains many times holds its data in memory: "
            "leave it out, or take a smaller part of the data"
        )
    _require_fitting_settings(config)
    found = load_streamed(config, progress) if may_stream and config.stream is not False else None
    raw = _in_windows(validate(_load_raw(config, progress) if found is None else found.raw), config)
    if found is not None:
        data = _assemble(config, raw, found.indices, found.y)
        identity = hashlib.sha256(f"{data.fingerprint} {found.identity}".encode()).hexdigest()[:16]
        return replace(data, stream=found.streams, fingerprint=identity)
    own_test = raw.x_test is not None
    indices = make_indices(
        raw.y,
        raw.classes,
        config,
        own_test=own_test,
        own_reg=raw.own_reg,
        groups=raw.groups,
        order=raw.order,
    )
    return _assemble(config, raw, indices, raw.y[indices.train])


def _require_fitting_settings(config: DataConfig) -> None:
    """Refuse settings of other kinds of data; those of functions are known when one has returned."""
    name = config.name
    require_fitting(config, can_stream(name), "image folders and Parquet files", "stream")
    if is_function(name):
        return
    is_known = name in known()
    path = Path(name) if is_known else local_path(name, "data")
    is_table = not is_known and path.suffix.lower() in TABLES
    is_npz = not is_known and path.suffix.lower() in ARRAYS
    is_series = not is_known and path.suffix.lower() in SERIES
    named = name in BUNDLED and name != "digits"
    require_fitting(config, is_table or named, "tables", "target", "drop", "kinds")
    require_fitting(config, is_table or named or is_npz or is_series, "tables, arrays and .ts files", "task")
    require_fitting(config, is_table or named or is_npz, "tables and arrays", "time_order")
    with_groups = is_table or named or is_npz or name == "watch"
    require_fitting(config, with_groups, "tables, arrays and 'watch'", "split_by")
    require_fitting(config, is_npz, "arrays (.npz)", "keys", "time_axis")
    require_fitting(config, not is_known and path.is_dir(), "image folders", "image_size")


def _load_raw(config: DataConfig, progress: Progress | None) -> Raw:
    if is_function(config.name):
        return load_function(config)
    if config.name in BUNDLED:
        return load_bundled(config)
    if config.name in SEQUENCES:
        return load_sequences(config)
    if config.name in VISION:
        return load_vision(config.name, config.root, download=config.download)
    # a known name comes before a folder of that name; "./name" is the folder
    path = local_path(config.name, "data")
    if path.is_dir():
        from crossreg.services.data.images import load_images

        return load_images(path, config.image_size, progress)
    if not path.exists():
        raise _not_found(config.name, path)
    # a pipe would be waited for, and a device may never end
    if not path.is_file():
        raise UserError(f"{config.name}: neither a file nor a folder; allowed: a folder, {', '.join(_FILES)}")
    if path.suffix.lower() in TABLES:
        from crossreg.services.data.tables import load_table

        return load_table(path, config)
    if path.suffix.lower() in ARRAYS:
        from crossreg.services.data.arrays import load_arrays

        return load_arrays(path, config)
    if path.suffix.lower() in SERIES:
        return load_ts(path, config)
    raise UserError(f"{config.name}: cannot load a file ending in {path.suffix!r}; allowed: {', '.join(_FILES)}")


def _not_found(name: str, path: Path) -> UserError:
    if path.suffix.lower() in _FILES or len(path.parts) > 1:
        return UserError(f"{name}: no such file or folder; looked for {path.absolute()}")
    return UserError(
        f"unknown dataset {name!r}{nearest(name, known())}; known names: {', '.join(known())}; or give the "
        f"path of an image folder or of a file ending in {', '.join(_FILES)}, or a function of your own as "
        "package.module:function"
    )


def _assemble(config: DataConfig, raw: Raw, indices: Indices, train_y: np.ndarray) -> Dataset:
    """Return the dataset of what is in memory; `train_y` are the targets of all that is trained on."""
    notes = list(raw.notes)
    if raw.own_reg is not None:
        notes.append(
            "the validation examples are the regularization split (--reg-share draws one from all but the test split)"
            if config.reg_share is None
            else "the validation examples are training examples like the others"
        )
    example: Any
    inputs: Inputs = raw.inputs
    if raw.table is not None:
        inputs = raw.table.fit(indices.train)
        held: list[np.ndarray] = [
            np.empty(0, int) if rows is None else rows for rows in (indices.train, indices.reg, indices.test)
        ]
        encoded = [raw.table.encode(inputs, rows, notes) for rows in held]
        train, reg, test = (Split(x, raw.y[rows]) for x, rows in zip(encoded, held, strict=True))
        example = raw.table.stored.iloc[held[2][:2]].reset_index(drop=True)
    else:
        assert raw.x is not None
        train, reg = (Split(raw.x[rows], raw.y[rows]) for rows in (indices.train, indices.reg))
        if raw.x_test is not None and raw.y_test is not None:
            test = Split(raw.x_test, raw.y_test)
        else:
            test = Split(raw.x[indices.test], raw.y[indices.test])
        example = raw.example
        if example is None or isinstance(inputs, Sequence):
            example = _as_stored(test.x[:2], inputs)
            example = example if raw.example is None else example.astype(raw.example.dtype)
    mean, std = moments(train.x)
    if config.raw:
        mean, std = np.zeros_like(mean), np.ones_like(std)
    target_mean, target_std = (None, None) if raw.classes else moments(train_y)
    task: Task = "classification" if raw.classes else "regression"
    return Dataset(
        name=config.name,
        task=task,
        classes=raw.classes,
        train=train,
        reg=reg,
        test=test,
        mean=mean.astype(np.float32),
        std=std.astype(np.float32),
        fingerprint=fingerprint(task, raw.classes, config.seed, (train, reg, test)),
        inputs=inputs,
        example=example,
        target_mean=target_mean,
        target_std=target_std,
        standardized=not config.raw,
        missing={} if raw.table is None else raw.table.missing,
        skipped=raw.skipped,
        notes=(*notes, *_rare(raw.classes, train_y, reg.y, test.y)),
    )


def _in_windows(raw: Raw, config: DataConfig) -> Raw:
    """Return what examples are made of: recordings, or windows of them."""
    if config.window is None:
        return raw
    if not isinstance(raw.inputs, Sequence):
        raise UserError(f"window={config.window} is for sequences only, and an example of {config.name} is none")
    return cut(raw, config.window, config.hop)


def _as_stored(x: np.ndarray, inputs: Inputs) -> np.ndarray:
    """Return examples as a file has them; of sequences of several lengths, as many steps as all have."""
    if not isinstance(inputs, Sequence):
        return x.copy()
    shortest = int(lengths_of("x", x).min())
    x = x[:, :, :shortest]
    x = x + np.asarray(inputs.offset)[:, None] if inputs.offset else x
    return np.ascontiguousarray(np.moveaxis(x, 1, 2) if inputs.time == "first" else x)


def _rare(classes: tuple[str, ...], train: np.ndarray, reg: np.ndarray, test: np.ndarray) -> list[str]:
    """Say which classes are in the train split alone."""
    found = []
    counts = {name: np.bincount(y, minlength=len(classes)) for name, y in
              (("train", train), ("reg", reg), ("test", test)) if classes and len(y)}  # fmt: skip
    for index, label in enumerate(classes):
        absent = [name for name in counts if not counts[name][index]]
        if absent:
            number = int(counts["train"][index])
            found.append(f"class {label!r} ({number} training examples) is not in {' and not in '.join(absent)}")
    more = len(found) - MANY
    return found if more <= 0 else [*found[:MANY], f"{more} more classes are not in every split"]
