"""Every constant of the zero-flag run, made larger and smaller by a factor: what it costs to have chosen it wrongly.

A constant is out of the way where neither direction costs a point of accuracy or five percent of NLL or RMSE, on
average over the pairs. Ten times is the rule; three or two where ten is absurd (a learning rate, a share, a number of
networks).
"""

from __future__ import annotations

import statistics
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those
from crossreg.studies.zero_flag.on_pairs import OnPairs
from crossreg.studies.zero_flag.pairs import PAIRS
from crossreg.training.course import CourseSettings

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["LEARNED", "VARIANTS", "Learned", "Sensitivity", "Variant"]

_DEFAULT = "as it is"
_POINT, _PERCENT = 1.0, 5.0
"""Most that a constant may cost: points of accuracy, percent of NLL or RMSE."""


@dataclass(frozen=True)
class Variant:
    """One constant changed.

    Attributes:
        constant: its name.
        value: that it has; None where that is no number.
        changes: fields of `TrainConfig`.
        course: fields of `CourseSettings`.
        reg_share: of the data; None leaves it.
        batch: factor on the batch.
    """

    constant: str
    value: float | None = None
    changes: Mapping[str, Any] = field(default_factory=dict)
    course: Mapping[str, float] = field(default_factory=dict)
    reg_share: float | None = None
    batch: float = 1.0

    @property
    def name(self) -> str:
        """The constant with its value."""
        return self.constant if self.value is None else f"{self.constant} {self.value:g}"


def _of_course(constant: str, *values: float) -> list[Variant]:
    return [Variant(constant.replace("_", " "), value, course={constant: value}) for value in values]


def _of_training(constant: str, path: str, *values: float) -> list[Variant]:
    section, _, key = path.partition(".")
    return [Variant(constant, value, {section: {key: value}} if key else {section: value}) for value in values]


VARIANTS: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        *_of_training("learning rate", "optimizer.lr", 1.5e-3, 1.5e-2),
        *_of_training("networks", "ensemble", 1, 2, 8),
        *_of_training("epochs", "epochs", 20, 80),
        *_of_training("weight decay", "regularizers.weight_decay", 0.02, 0.5),
        *_of_training("dropout", "regularizers.dropout", 0.03, 0.3),
        Variant("batch factor", 0.5, batch=0.5),
        Variant("batch factor", 2, batch=2),
        Variant("held-out share", 0.05, reg_share=0.05),
        Variant("held-out share", 0.3, reg_share=0.3),
        *_of_course("growth", 1.1, 1.6),
        *_of_course("overrun", 1.2, 6.0),
        *_of_course("cooldown", 0.1, 0.9),
        *_of_course("warmup", 0.1, 3.0),
        *_of_course("power", 3, 30),
        *_of_course("first_steps", 5, 500),
        *_of_course("least", 0.5, 50.0),
    )
}
"""Every variant by its name."""

_UNROLLED = {"rho": {"estimator": "unrolled"}}
LEARNED: dict[str, Variant] = {
    variant.name: variant
    for variant in (
        Variant("direct noise", changes={"regularizers": {"noise": {}}}),
        Variant("unrolled noise", changes={"regularizers": {"noise": {}}} | _UNROLLED),
        Variant("noise for dropout", changes={"regularizers": {"noise": {"after": "dropout"}, "dropout": 0.1}}),
        Variant("unrolled L2", changes={"regularizers": {"l2": {}}} | _UNROLLED),
    )
}
"""What a run can learn beside its length, by its name."""


class Sensitivity(OnPairs):
    """What it costs to change a constant."""

    name = "sensitivity"
    summary = "every constant of a run without flags, larger and smaller"
    pairs: ClassVar[tuple[str, ...]] = ("fashion-mlp", "digits-mlp", "diamonds-cut", "diabetes", "watch")
    variants: ClassVar[dict[str, Variant]] = VARIANTS
    columns: ClassVar = {
        "variant": "constant",
        "accuracy": "accuracy, points",
        "nll": "NLL, %",
        "rmse": "RMSE, %",
        "compute": "compute",
        "verdict": "within bounds",
    }

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every variant on every pair and seed."""
        return [
            {"variant": variant, "pair": pair, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for variant in (_DEFAULT, *self.variants)
            for pair in self.only
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what one variant reaches on one pair."""
        from crossreg.studies.zero_flag.search import batch_of, zero_flag

        pair = PAIRS[case["pair"]]
        variant = self.variants.get(case["variant"], Variant(_DEFAULT))
        data = pair.config(self.files(Path(case["root"])), case["seed"])
        if variant.reg_share is not None:
            data = data.model_copy(update={"reg_share": variant.reg_share})
        settings = replace(CourseSettings(), **dict[str, Any](variant.course))
        about = {key: case[key] for key in ("variant", "pair", "seed")}
        changes = dict(variant.changes)
        if variant.batch != 1:
            changes["batch_size"] = round(variant.batch * batch_of(pair, data, case["seed"]))
        return [{**about, **zero_flag(pair, data, case["seed"], settings, **changes)}]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return the mean change of every variant over pairs and seeds."""
        return [self._row(name, changes) for name, changes in self._changes(rows).items()]

    def _row(self, name: str, changes: dict[str, float]) -> dict[str, str]:
        cells = {key: f"{changes[key]:+.2f}" if key in changes else "–" for key in ("accuracy", "nll", "rmse")}
        verdict = "yes" if _within(changes) else "no"
        return {"variant": name, **cells, "compute": f"{changes['compute']:.2f}", "verdict": verdict}

    def _changes(self, rows: list[Measurement]) -> dict[str, dict[str, float]]:
        """Return by variant the mean changes: points of accuracy, percent of NLL and RMSE, factor of compute."""
        found = {}
        for name in self._names(rows):
            changes: dict[str, list[float]] = {}
            for one in _differences(rows, name):
                for key, value in one.items():
                    changes.setdefault(key, []).append(value)
            found[name] = {key: statistics.mean(values) for key, values in changes.items()}
        return found

    @staticmethod
    def _names(rows: list[Measurement]) -> list[str]:
        return [name for (name,) in groups(rows, "variant") if name != _DEFAULT]

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say which constants matter."""
        changes = self._changes(rows)
        out = [name for name, one in changes.items() if not _within(one)]
        within = f"{len(changes) - len(out)} of {len(changes)} changes"
        return [
            f"{within} cost less than a point of accuracy and 5 % of NLL or RMSE",
            f"beyond that: {', '.join(out) or 'none'}",
        ]

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return the changes by variant."""
        return {
            f"{key}/{name.replace(' ', '_')}": value
            for name, one in self._changes(rows).items()
            for key, value in one.items()
        }

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw the change in NLL or RMSE of every variant, a point a pair."""
        from crossreg.services.style import LOSES, WINS, new_figure, plain

        names = self._names(rows)
        within = {name: _within(one) for name, one in self._changes(rows).items()}
        figure = new_figure(7, 1.2 + 0.26 * len(names))
        axes = figure.subplots()
        for place, name in enumerate(reversed(names)):
            for one in _differences(rows, name):
                change = one["nll"] if "nll" in one else one["rmse"]
                axes.plot([change], [place], "o", color=WINS if within[name] else LOSES, markersize=4, alpha=0.7)
        axes.set_yticks(range(len(names)), list(reversed(names)))
        axes.axvline(0, color="0.4", linewidth=0.8)
        for bound in (-_PERCENT, _PERCENT):
            axes.axvline(bound, color="0.4", linewidth=0.8, linestyle=":")
        axes.set_xlabel("change in NLL or RMSE (%), a point a pair")
        plain(axes)
        return figure


class Learned(Sensitivity):
    """What it brings to learn regularization in the trunk, beside the base that is fixed."""

    name = "learned"
    summary = "regularization learned in the trunk of a run without flags, against its fixed base"
    pairs: ClassVar = tuple(PAIRS)[:9]  # those that chose the first defaults
    variants: ClassVar = LEARNED

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say on how many pairs learning has the lower NLL or RMSE."""
        said = []
        for name in self._names(rows):
            better = []
            for (pair,) in groups(rows, "pair"):
                key = "nll" if "nll" in those(rows, pair=pair)[0] else "rmse"
                mine, base = (
                    statistics.mean(row[key] for row in those(rows, pair=pair, variant=one)) for one in (name, _DEFAULT)
                )
                better.append(mine < base)
            said.append(f"{name}: better than the base in NLL or RMSE on {sum(better)} of {len(better)} pairs")
        return said


def _differences(rows: list[Measurement], name: str) -> Iterator[dict[str, float]]:
    """Yield what a variant changes, row by row: points of accuracy, percent of NLL and RMSE, factor of compute."""
    for row in those(rows, variant=name):
        (before,) = those(rows, variant=_DEFAULT, pair=row["pair"], seed=row["seed"])
        found = {"compute": row["flops"] / before["flops"]}
        if "accuracy" in row:
            found["accuracy"] = 100 * (row["accuracy"] - before["accuracy"])
        yield found | {key: 100 * (row[key] / before[key] - 1) for key in ("nll", "rmse") if key in row}


def _within(changes: dict[str, float]) -> bool:
    worse = [changes[key] for key in ("nll", "rmse") if key in changes]
    return changes.get("accuracy", 0.0) > -_POINT and all(value < _PERCENT for value in worse)
