"""Data and trainings of the study: every scene is one dataset on which several trainings are compared."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

__all__ = ["CORRELATED", "GRID", "LEARNED", "SAME_ROWS", "SCENES", "SPEED", "TABLES", "WIDE", "Scene"]

SAME_ROWS = "lstm + cnn1d, same rows"
"""Without a penalty; what penalties are compared with, since all of theirs see the same rows too."""
LEARNED = "diversity learned"
WIDE = "one, four times as wide"
SPEED = "speed"


@dataclass(frozen=True)
class Scene:
    """Trainings on one dataset.

    Attributes:
        data: fields of `DataConfig`; "pair" names one of the zero-flag study instead.
        arms: changes of `TrainConfig` by name.
        splits: how many for a seed of the study.
        compared: `TrainConfig` that all of them have.
    """

    data: Mapping[str, Any]
    arms: Mapping[str, Mapping[str, Any]]
    splits: int = 1
    compared: Mapping[str, Any] = field(default_factory=dict)


def _fixed(name: str, value: float, **options: Any) -> dict[str, Any]:
    return {"regularizers": {name: {"learn": False, "value": value, **options}}}


def _on(name: str, width: str, wide: int) -> dict[str, dict[str, Any]]:
    return {
        "four": {"model": name, "ensemble": 4},
        "one": {"model": name, "ensemble": 1},
        WIDE: {"model": name, "ensemble": 1, "model_options": {width: wide}},
    }


_TABLE: dict[str, dict[str, Any]] = {
    "one": {"ensemble": 1},
    "five": {"ensemble": 5},
    "five, shared weights": {"ensemble": 5, "ensemble_style": "shared"},
    "sixteen, shared weights": {"ensemble": 16, "ensemble_style": "shared"},
}
TABLES = ("diamonds-cut", "home-ownership", "wages")

GRID = {f"diversity {value:g}": value for value in (0.25, 0.5, 0.75, 0.95)}
"""Weights of diversity, beside none."""
_BOTH: dict[str, Any] = {"ensemble": "lstm,cnn1d"}
_PENALTIES: dict[str, dict[str, Any]] = {
    "lstm": {"model": "lstm", "ensemble": 1},
    "cnn1d": {"model": "cnn1d", "ensemble": 1},
    "cnn1d + cnn1d": {"model": "cnn1d", "ensemble": 2},
    "lstm + cnn1d": _BOTH,
    SAME_ROWS: _BOTH | _fixed("diversity", 1e-6),
    **{name: _BOTH | _fixed("diversity", value) for name, value in GRID.items()},
    "consistency 0.1": _BOTH | _fixed("consistency", 0.1),
    "consistency 1": _BOTH | _fixed("consistency", 1.0),
    "cosine diversity 0.1": _BOTH | _fixed("diversity", 0.1, measure="cosine"),
    "cosine diversity 0.5": _BOTH | _fixed("diversity", 0.5, measure="cosine"),
    "diversity 0.5 by gap": _BOTH | _fixed("diversity", 0.5, weight="gap"),
    "negative correlation 0.5": _BOTH | _fixed("diversity", 0.5, measure="negative-correlation"),
    "joint 0.5": _BOTH | _fixed("joint", 0.5),
    "joint 0.999": _BOTH | _fixed("joint", 0.999),
    LEARNED: _BOTH | {"regularizers": {"diversity": {}}, "rho": {"estimator": "unrolled"}},
}
CORRELATED = (SAME_ROWS, *GRID)

_FEW = (
    "lstm", "cnn1d", "cnn1d + cnn1d", "lstm + cnn1d", SAME_ROWS, "diversity 0.5", "consistency 1", "joint 0.999",
)  # fmt: skip

SCENES: dict[str, Scene] = {
    "digits": Scene({"name": "digits"}, _on("mlp", "hidden", 2048)),
    "fashion": Scene({"name": "fashion-mnist", "limit": 10_000}, _on("mlp", "hidden", 2048), compared={"epochs": 12}),
    "watch": Scene({"name": "watch", "split_by": "subject"}, _on("cnn1d", "width", 192)),
    **{name: Scene({"pair": name}, _TABLE) for name in TABLES},
    "persons": Scene({"name": "watch", "split_by": "subject"}, _PENALTIES, splits=2, compared={"epochs": 12}),
    "vowels": Scene({"name": "japanese-vowels"}, {name: _PENALTIES[name] for name in _FEW}),
}
"""Every scene by its name."""
