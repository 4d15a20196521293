"""Learned augmentation: whether planted magnitudes are found, and whether two ways to go wrong are noticed.

    planted      images of reg and test are shifted and turned by up to a planted amount, those of train are not
    6 and 9      digits that are alike when turned by 180 degrees; the rotation starts at 180, or is fixed at some angle
    background   an image's brightness gives its class away in train and reg, but not in test

Augmentation acts on training images alone, so it takes estimators that follow theta's response. They look for the
magnitudes of the lowest held-out loss. Those are the planted ones, unless more augmentation regularizes better, or the
images of reg do not look like those of test.
"""

from __future__ import annotations

from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.services.data import DataConfig
from crossreg.studies.augmentation.findings import findings, median_of, numbers, text_of
from crossreg.studies.augmentation.problem import (
    ESTIMATORS,
    STEPS,
    brightened,
    load_pictures,
    only,
    planted,
    train,
)
from crossreg.studies.study import Measurement, Study
from crossreg.studies.summing import mean_and_deviation

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AugmentationMagnitudes"]

PLANTED = ((0.0, 0.0), (2 / 28, 0.0), (4 / 28, 0.0), (0.0, 15.0), (0.0, 30.0), (3 / 28, 15.0))
"""Shifts, as shares of the width of an image (2, 3 and 4 pixels of 28), with rotations in degrees."""
TURNS = (45.0, 90.0, 135.0, 180.0)
"""Fixed rotations of 6 and 9, in degrees."""
BRIGHTNESS = 1.0
NUM_SHIFTED = 100
"""Images of the small reg split whose brightness says nothing."""
FAILURE_ESTIMATORS = ("unrolled, 1 step", "T1-T2")
"""The estimators that are shown both ways to go wrong."""


class AugmentationMagnitudes(Study):
    """Planted shifts and rotations, 6 and 9 under rotation, and a brightness that gives the class away."""

    name = "augmentation"
    summary = "learned augmentation: planted magnitudes, 6 and 9 upside down, a spurious background"
    default_data = "digits"
    columns: ClassVar = {
        "setting": "setting",
        "method": "augmentation of training images",
        "learned": "magnitudes",
        "test": "test acc. %",
        "gap": "train − test",
        "reg": "reg acc. %",
        "reg_loss": "reg loss",
    }
    labels = 2
    steps: ClassVar[int] = STEPS

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every pair of planted magnitudes, and both ways to go wrong, with every seed."""
        parts: list[dict[str, Any]] = [
            {"part": "planted", "shift": shift, "rotation": rotation} for shift, rotation in PLANTED
        ]
        parts += [{"part": "6 and 9"}, {"part": "background"}]
        return [{**part, "seed": seed} for part in parts for seed in range(seeds)]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return a measurement of every method."""
        seed = case["seed"]
        if case["part"] == "planted":
            return self._planted(case["shift"], case["rotation"], seed)
        return self._six_and_nine(seed) if case["part"] == "6 and 9" else self._background(seed)

    def _planted(self, share: float, rotation: float, seed: int) -> list[Measurement]:
        """Train without augmentation, with the planted magnitudes, and with learned ones."""
        pictures = load_pictures(self._data, seed)
        width = pictures.train[0].shape[3]
        shift = share * width
        there = planted(pictures, seed, shift, rotation)
        known = {"part": "planted", "setting": _setting(shift, rotation), "seed": seed}
        known |= {"planted": {"shift": shift, "rotation": rotation}}
        given = {kind: size for kind, size in (("shift", shift), ("rotation", rotation)) if size}
        arms: dict[str, tuple[dict[str, float] | None, str | None]] = {"none": (None, None)}
        if given:
            arms["the planted magnitudes"] = (given, None)
        arms |= {name: ({"shift": width / 28, "rotation": 5.0}, name) for name in ESTIMATORS}
        return [{**known, "method": name, **train(there, *arm, seed, self.steps)} for name, arm in arms.items()]

    def _six_and_nine(self, seed: int) -> list[Measurement]:
        """Train with fixed rotations, and with one that is learned from 180 degrees on."""
        pictures = load_pictures(self._data, seed)
        if not {"6", "9"} <= set(pictures.classes):
            pictures = load_pictures(DataConfig(name="digits"), seed)
        pictures = only(pictures, ("6", "9"))
        arms: dict[str, tuple[dict[str, float] | None, str | None]] = {"none": (None, None)}
        arms |= {f"fixed, {turn:g}°": ({"rotation": turn}, None) for turn in TURNS}
        arms |= {f"{name}, from 180°": ({"rotation": 180.0}, name) for name in FAILURE_ESTIMATORS}
        known = {"part": "6 and 9", "setting": "6 and 9", "seed": seed}
        return [{**known, "method": name, **train(pictures, *arm, seed, self.steps)} for name, arm in arms.items()]

    def _background(self, seed: int) -> list[Measurement]:
        """Train with a reg split like the training images, and then with a small one whose brightness says nothing."""
        pictures = load_pictures(self._data, seed)
        classes = len(pictures.classes)
        some = (pictures.reg[0][:NUM_SHIFTED], pictures.reg[1][:NUM_SHIFTED])
        alike = replace(
            pictures,
            train=brightened(pictures.train, classes, BRIGHTNESS),
            reg=brightened(pictures.reg, classes, BRIGHTNESS),
            test=brightened(pictures.test, classes, BRIGHTNESS, seed=seed),
        )
        shifted = replace(alike, reg=brightened(some, classes, BRIGHTNESS, seed=seed + 1))
        start = {"brightness": 0.1, "input_noise": 0.1}
        rows = []
        for setting, here in (("reg like train", alike), (f"reg of {len(some[1])} images like test", shifted)):
            arms: dict[str, tuple[dict[str, float] | None, str | None]] = {"none": (None, None)}
            arms |= {name: (start, name) for name in FAILURE_ESTIMATORS}
            known = {"part": "background", "setting": setting, "seed": seed, "detects": here is shifted}
            rows += [{**known, "method": name, **train(here, *arm, seed, self.steps)} for name, arm in arms.items()]
        return rows

    @property
    def _data(self) -> DataConfig:
        assert self.data is not None
        return self.data

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return medians over seeds, with the range of what was learned, and standard deviations of accuracies."""
        found = []
        for setting, method in dict.fromkeys((row["setting"], row["method"]) for row in rows):
            mine = [row for row in rows if (row["setting"], row["method"]) == (setting, method)]
            found.append(
                {
                    "setting": setting,
                    "method": method,
                    "learned": text_of([row["magnitudes"] for row in mine]),
                    **{key: mean_and_deviation([row[key] for row in mine], 1) for key in ("test", "gap", "reg")},
                    "reg_loss": f"{median_of(mine, 'reg_loss'):.3f}",
                }
            )
        return found

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say which estimator finds what was planted, and whether the two ways to go wrong are noticed."""
        return findings(rows)

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return how far off each estimator is, and what shows that something goes wrong."""
        return numbers(rows)

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw learned against planted magnitudes, and the two ways to go wrong."""
        from crossreg.studies.augmentation.figure import draw

        return draw(rows)


def _setting(shift: float, rotation: float) -> str:
    parts = [f"shift {shift:.2g} px"] * bool(shift) + [f"rotation {rotation:g}°"] * bool(rotation)
    return "planted: " + (", ".join(parts) or "nothing")
