"""What the meta-loss does to a learned optimizer: losses on the way, sharpness, differences."""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import COLOURS, log_axis, new_figure, plain
from crossreg.studies.claims import interval
from crossreg.studies.learned_optimizer.claims import PLAIN
from crossreg.studies.learned_optimizer.summed import (
    OTHER_DATA,
    OTHER_NETWORK,
    at,
    chosen,
    differences,
    losses_of,
    rules_of,
)
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]

_PLACES = {
    "seen": at(1),
    OTHER_NETWORK: at(1, OTHER_NETWORK),
    OTHER_DATA: at(1, OTHER_DATA),
    "2x": at(2),
    "10x": at(10),
}

_OTHERS = {"sgd": "-", "adam": (0, (1, 1)), "sam": "-.", "gsam": (0, (6, 2))}
"""Other optimizers beside AdamW, and how their lines are drawn."""


def draw(rows: list[Measurement]) -> Figure:
    """Draw, a row for each form of rule: losses over steps, sharpness over training loss, test NLL against plain."""
    rules = rules_of(rows)
    figure = new_figure(13, 4.2 * len(rules))
    grid = figure.subplots(len(rules), 3, squeeze=False)
    for rule, (way, sharp, apart) in zip(rules, grid, strict=True):
        losses = losses_of(rows, rule)
        colours = dict(zip(losses, COLOURS, strict=False))
        _way(way, rows, rule, colours)
        _sharpness(sharp, rows, rule, colours)
        _differences(apart, rows, rule, colours)
        way.set_title(f"{rule} rule, on digits", loc="left")
    return figure


def _mean_curve(rows: list[Measurement], key: str) -> tuple[list[float], list[float]]:
    """Return steps, or training losses where the key is a measure of flatness, and geometric means over trainings."""
    looks: dict[int, list[tuple[float, float]]] = {}
    for row in rows:
        for one in row["curve"]:
            if key in one and one["train_loss"] > 0 and one[key] > 0:
                looks.setdefault(one["step"], []).append((one["train_loss"], one[key]))

    def mean(values: list[float]) -> float:
        return math.exp(statistics.mean(map(math.log, values)))

    steps = sorted(step for step in looks if step)
    over = [mean([train for train, _ in looks[step]]) for step in steps]
    across = steps if key.endswith("_loss") else over
    return list(map(float, across)), [mean([value for _, value in looks[step]]) for step in steps]


def _way(axes: Axes, rows: list[Measurement], rule: str, colours: dict[str, str]) -> None:
    lines = {loss: [row for row in those(rows, what="learned", rule=rule, loss=loss) if at(1)(row)] for loss in colours}
    if those(rows, what="other", rule="adamw"):
        lines["AdamW, tuned"] = chosen(rows, "adamw", at(1))
    for name, mine in lines.items():
        colour = colours.get(name, "0.3")
        axes.plot(*_mean_curve(mine, "train_loss"), "--", color=colour, linewidth=1)
        axes.plot(*_mean_curve(mine, "test_loss"), color=colour, label=name)
    for name, style in _OTHERS.items():
        if those(rows, what="other", rule=name):
            mine = chosen(rows, name, at(1))
            axes.plot(
                *_mean_curve(mine, "test_loss"), linestyle=style, color="0.6", linewidth=1, label=f"{name}, tuned"
            )
    log_axis(axes, "x", 6)
    log_axis(axes, "y", 6)
    axes.set_xlabel("step")
    axes.set_ylabel("loss: test (line), training (dashed)")
    axes.legend(frameon=False, fontsize=7)
    plain(axes)


def _sharpness(axes: Axes, rows: list[Measurement], rule: str, colours: dict[str, str]) -> None:
    for loss, colour in colours.items():
        mine = [row for row in those(rows, what="learned", rule=rule, loss=loss) if at(1)(row)]
        axes.plot(*_mean_curve(mine, "sharpness"), "o-", color=colour, markersize=3)
        axes.plot(*_mean_curve(mine, "relative_sharpness"), "s:", color=colour, markersize=3)
    log_axis(axes, "x", 6)
    log_axis(axes, "y", 6)
    axes.set_xlabel("training loss")
    axes.set_ylabel("sharpness: radius .5, or .03 of the norm (dotted)")
    plain(axes)


def _differences(axes: Axes, rows: list[Measurement], rule: str, colours: dict[str, str]) -> None:
    losses = [loss for loss in colours if loss != PLAIN]
    for place, (_, pick) in enumerate(_PLACES.items()):
        for number, loss in enumerate(losses):
            values = differences(rows, rule, loss, PLAIN, pick, "test_loss")
            if not values:
                continue
            mean, half = interval(values)
            height = -place - 0.15 * (number - (len(losses) - 1) / 2)
            known = [half] if math.isfinite(half) else None
            axes.errorbar([mean], [height], xerr=known, fmt="o", color=colours[loss], markersize=4)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks([-place for place in range(len(_PLACES))], list(_PLACES))
    axes.set_xlabel("test NLL against the plain meta-loss (left is better)")
    plain(axes)
