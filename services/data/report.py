"""How data were read, for people and for programs."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossreg.inputs import Array, Table
from crossreg.services.data.dataset import Dataset

__all__ = ["describe", "in_lines"]

_NAMES = 12  # columns that a line names


def describe(data: Dataset) -> dict[str, Any]:
    """Return plain values: task, classes, features, splits, and what was skipped, guessed or doubled.

    Returns:
        `task`; `classes`, the examples of each by split; `features`, each with `name`, `kind` ("dropped" with a
        `reason`) and `missing`; `input_shape`; `input_range` of the training split; `target`, of a regression;
        `splits`, their sizes; `streamed`, whether training examples are read from disk (ranges, missing values and
        doubles are then those of a sample); `duplicates`, the examples of a split that occur in an earlier one;
        `skipped`, files by ending; `notes`; `fingerprint`.
    """
    targets = {"train": data.train_y, "reg": data.reg.y, "test": data.test.y}
    described: dict[str, Any] = {"data": data.name, "task": data.task, "classes": _classes(data, targets)}
    if data.task == "regression":
        y = targets["train"]
        described["target"] = [
            {"mean": float(mean), "std": float(std), "min": float(low), "max": float(high)}
            for mean, std, low, high in zip(y.mean(0), y.std(0), y.min(0), y.max(0), strict=True)
        ]
    return described | {
        "features": _features(data),
        "input_shape": list(data.input_shape),
        "input_dtype": data.inputs.dtype if isinstance(data.inputs, Array) else "float32",
        "input_range": [float(np.nanmin(data.train.x)), float(np.nanmax(data.train.x))],
        "splits": {name: len(y) for name, y in targets.items()},
        "streamed": data.stream is not None,
        "duplicates": _duplicates(data),
        "skipped": dict(data.skipped),
        "notes": list(data.notes),
        "fingerprint": data.fingerprint,
    }


def _classes(data: Dataset, targets: dict[str, np.ndarray]) -> dict[str, dict[str, int]]:
    counts = {name: np.bincount(y, minlength=len(data.classes)) for name, y in targets.items() if data.classes}
    return {
        label: {name: int(count[index]) for name, count in counts.items()} for index, label in enumerate(data.classes)
    }


def _features(data: Dataset) -> list[dict[str, Any]]:
    if not isinstance(data.inputs, Table):
        return []
    taken: list[dict[str, Any]] = [
        {"name": one.name, "kind": one.kind, "missing": data.missing.get(one.name, 0), "features": len(one.features)}
        for one in data.inputs.columns
    ]
    dropped = [
        {"name": one.name, "kind": "dropped", "missing": data.missing.get(one.name, 0), "reason": one.reason}
        for one in data.inputs.ignored
        if one.reason != "the target"
    ]
    return taken + dropped


def _duplicates(data: Dataset) -> dict[str, int]:
    """Return how many examples of reg and test have inputs that occur in an earlier split."""
    seen: set[int] = set()
    found = {}
    for name, split in (("train", data.train), ("reg", data.reg), ("test", data.test)):
        # 64 bits of a hash: among a million rows two different ones are alike with a chance of 3e-8
        rows = [hash(row.tobytes()) for row in split.x]
        if name != "train":
            found[name] = sum(row in seen for row in rows)
        seen.update(rows)
    return found


def in_lines(described: dict[str, Any]) -> list[str]:
    """Return what a person reads before a training: two or three lines, and one for each note."""
    sizes = described["splits"]
    what = f"{len(described['classes'])} classes" if described["classes"] else "regression"
    shape = "x".join(map(str, described["input_shape"]))
    low, high = described["input_range"]
    lines = [
        f"data: {what}; {sizes['train']:,} train, {sizes['reg']:,} reg, {sizes['test']:,} test examples of {shape}"
        + ("" if described["features"] else f" ({described['input_dtype']}, {low:g} to {high:g})")
    ]
    if described["features"]:
        lines.append(f"columns: {_columns(described['features'])}")
    doubled = described["duplicates"]
    if any(doubled.values()):
        lines.append(
            f"duplicates: {doubled['test']:,} of {sizes['test']:,} test examples are in train or reg too, "
            f"{doubled['reg']:,} of {sizes['reg']:,} reg examples in train"
        )
    return lines + [f"note: {note}" for note in described["notes"]]


def _columns(features: list[dict[str, Any]]) -> str:
    kinds: dict[str, list[dict[str, Any]]] = {}
    for one in features:
        kinds.setdefault(one["kind"], []).append(one)
    plural = {"number": "numbers", "boolean": "booleans", "category": "categories", "date": "dates"}
    parts = []
    for kind, those in kinds.items():
        if kind == "dropped":
            named = [f"{one['name']} ({one['reason']})" for one in those[:_NAMES]]
        else:
            named = [
                one["name"] + (f" ({one['missing']:,} missing)" if one["missing"] else "") for one in those[:_NAMES]
            ]
        more = f" and {len(those) - _NAMES} more" if len(those) > _NAMES else ""
        parts.append(f"{plural.get(kind, kind)} {', '.join(named)}{more}")
    return "; ".join(parts)
