"""Learned against planted augmentation, and the two ways to go wrong."""

from __future__ import annotations

from typing import TYPE_CHECKING

from crossreg.services.style import COLOURS, GREY, ORANGE, SKY, new_figure, plain
from crossreg.studies.augmentation.findings import mean_of, of_method
from crossreg.studies.augmentation.problem import ESTIMATORS
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_MARKERS = ("o", "s", "^", "D")


def draw(rows: list[Measurement]) -> Figure:
    """Draw learned against planted shifts and rotations, held-out loss against rotation, and accuracies."""
    figure = new_figure(11, 8)
    (shift, turn), (upside, background) = figure.subplots(2, 2)
    _draw_planted(shift, rows, "shift", "pixels")
    _draw_planted(turn, rows, "rotation", "degrees")
    shift.legend(fontsize=8, frameon=False)
    _draw_turns(upside, rows)
    _draw_background(background, rows)
    for axes in (shift, turn, upside, background):
        plain(axes)
    return figure


def _draw_planted(axes: Axes, rows: list[Measurement], kind: str, unit: str) -> None:
    largest = max((row["planted"][kind] for row in rows if row["part"] == "planted"), default=1.0)
    for place, (method, colour, marker) in enumerate(zip(ESTIMATORS, COLOURS, _MARKERS, strict=False)):
        mine = of_method(rows, "planted", method)
        axes.plot(
            [row["planted"][kind] + 0.012 * (place - 1.5) * largest for row in mine],
            [row["magnitudes"][kind] for row in mine],
            marker, color=colour, markersize=5, alpha=0.75, linestyle="none", label=method,
        )  # fmt: skip
    axes.plot([0, largest], [0, largest], color="0.4", linewidth=0.8, linestyle=":", label="as planted")
    axes.set(xlabel=f"planted {kind}, {unit}", ylabel=f"learned {kind}, {unit}")


def _draw_turns(axes: Axes, rows: list[Measurement]) -> None:
    mine = those(rows, part="6 and 9")
    fixed = [row for row in mine if row["method"].startswith("fixed")]
    turns = sorted({row["magnitudes"]["rotation"] for row in fixed})
    axes.plot(
        turns, [mean_of([r for r in fixed if r["magnitudes"]["rotation"] == t], "reg_loss") for t in turns],
        "o-", color=GREY, label="fixed (mean)",
    )  # fmt: skip
    for method, colour, marker in zip(ESTIMATORS, COLOURS, _MARKERS, strict=False):
        found = [row for row in mine if row["method"].startswith(f"{method}, from")]
        if found:
            axes.plot(
                [row["magnitudes"]["rotation"] for row in found], [row["reg_loss"] for row in found],
                marker, color=colour, linestyle="none", label=f"{method}, from 180°",
            )  # fmt: skip
    axes.set(xlabel="6 and 9: rotation, degrees", ylabel="held-out loss", yscale="log")
    axes.legend(fontsize=8, frameon=False)


def _draw_background(axes: Axes, rows: list[Measurement]) -> None:
    mine = those(rows, part="background")
    names = list(dict.fromkeys((row["setting"], row["method"]) for row in mine))
    for offset, key, colour in ((-0.2, "reg", SKY), (0.2, "test", ORANGE)):
        heights = [mean_of([row for row in mine if (row["setting"], row["method"]) == name], key) for name in names]
        places = [place + offset for place in range(len(names))]
        axes.bar(places, heights, 0.38, color=colour, label=f"{key} accuracy, %")
    labels = [f"{method.replace(', ', chr(10))}\n{setting.partition(' images')[0]}" for setting, method in names]
    axes.set_xticks(range(len(names)), labels, fontsize=7)
    axes.set(ylabel="spurious background: accuracy, %")
    axes.set_ylim(0, 112)
    axes.legend(fontsize=8, frameon=False, ncol=2, loc="upper right")
