"""Scores against compute, all methods on one axis."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.groups import Group, spent
from crossreg.services.comparison.report.numbers import UNIT_NAMES, score_name
from crossreg.services.comparison.report.summary import Summary
from crossreg.services.style import (
    REFERENCE_MARKER,
    LineStyle,
    empty,
    line_styles,
    log_axis,
    new_figure,
    plain,
    shorten,
)

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from crossreg.services.comparison.outcome import Outcome

__all__ = ["compute", "mean_curve"]

_SETTLED = 0.3
"""Share of a method's compute after which its scores must lie inside the panel."""


def mean_curve(outcomes: Iterable[Outcome], score: str, unit: str) -> np.ndarray | None:
    """Return compute and the score's mean, smallest and largest value over seeds: an array [4, points].

    Seeds are put on one axis by the share of their own compute; where seeds cost the same this is their compute.

    Args:
        outcomes: of one method and budget, one for each seed.
        score: its name, on the test split.
        unit: of compute.
    """
    import numpy as np

    curves = []
    for outcome in outcomes:
        points = [(spent(point.cost, unit), point.test.get(score, math.nan)) for point in outcome.curve]
        points = [(cost, value) for cost, value in points if cost > 0 and math.isfinite(cost + value)]
        if points:
            curves.append(np.asarray(points).T)
    if not curves:
        return None
    shares = [costs / costs[-1] for costs, _ in curves]
    grid = np.unique(np.round(np.concatenate(shares), 9))
    grid = grid[grid >= max(share[0] for share in shares) - 1e-9]
    values = np.stack([np.interp(grid, share, value) for share, (_, value) in zip(shares, curves, strict=True)])
    costs = grid * np.mean([costs[-1] for costs, _ in curves])
    return np.stack([costs, values.mean(0), values.min(0), values.max(0)])


def compute(groups: Sequence[Group], summary: Summary) -> Figure | None:
    """Draw accuracy and NLL, or the first two scores there are, against compute; None where neither is known."""
    unit, reference = summary.context.unit, summary.context.reference
    names = sorted(summary.scores, key=lambda name: name not in ("accuracy", "nll"))[:2]
    figure = new_figure(9.0, 3.4 * max(len(names), 1) + 0.28 * math.ceil(len(groups) / 4) + 0.3)
    panels: Any = figure.subplots(len(names), 1, sharex=True, squeeze=False)[:, 0] if names else []
    styles = line_styles([group.method for group in groups], reference)
    entries: dict[str, LineStyle] = {}
    starts, ends = [], []
    for axes, score in zip(panels, names, strict=True):
        drawn = []
        for group, style in zip(groups, styles, strict=True):
            line = _Line(group, score, unit)
            if line.draw(axes, style):
                drawn.append(line)
                entries.setdefault(_label(group), style)
        low, high = _limits(axes, score, [value for line in drawn for value in line.settled])
        starts += [line.enters(low, high) for line in drawn]
        ends += [line.end for line in drawn]
        plain(axes)
        axes.set_ylabel(f"test {score_name(score)}" + (" (nats)" if score == "nll" else ""))
    if not entries:
        return None
    _compute_axis(panels[-1], unit, min(starts), max(ends))
    handles = [panels[0].plot([], [], label=label, **style.line, **style.marks)[0] for label, style in entries.items()]
    figure.legend(handles=handles, loc="outside lower center", ncols=min(4, len(handles)), frameon=False)
    return figure


class _Line:
    """A method's way to its final score.

    Args:
        group: whose.
        score: its name.
        unit: of compute.
    """

    def __init__(self, group: Group, score: str, unit: str) -> None:
        import numpy as np

        self.curve = mean_curve((group.scored or group.outcomes).values(), score, unit)
        ends = [outcome.curve[-1] if outcome.curve else outcome for outcome in group.scored.values()]
        self.finals = [end.test[score] for end in ends if score in end.test]
        at = float(np.mean([spent(outcome.cost, unit) for outcome in group.outcomes.values()]))
        self.at = self.end = at if math.isfinite(at) and at > 0 else math.nan
        self.settled: list[float] = [] if math.isnan(self.at) else list(self.finals)
        if self.curve is not None:
            self.end = float(np.nanmax([self.at, self.curve[0, -1]]))
            late = self.curve[0] >= _SETTLED * self.curve[0, -1]
            self.settled += self.curve[1:, late].ravel().tolist()

    def draw(self, axes: Axes, style: LineStyle) -> bool:
        """Draw it; say whether there was anything to draw."""
        import numpy as np

        if self.curve is not None:
            cost, mean, low, high = self.curve
            axes.plot(cost, mean, zorder=3, **style.line)
            axes.fill_between(cost, low, high, color=style.colour, alpha=0.13, linewidth=0)
        if self.finals and not math.isnan(self.at):
            top = 6 if style.marker == REFERENCE_MARKER else 5
            axes.plot([self.at], [np.mean(self.finals)], linestyle="none", zorder=top, **style.marks)
        return bool(self.settled)

    def enters(self, low: float, high: float) -> float:
        """Return the compute at which it comes into the panel."""
        if self.curve is None:
            return self.at
        inside = (self.curve[1] >= low) & (self.curve[1] <= high)
        return float(self.curve[0, inside.argmax()])


def _label(group: Group) -> str:
    text = shorten(group.label, 30)
    return f"{text}, {len(group.diverged)} of {len(group.outcomes)} diverged" if group.diverged else text


def _limits(axes: Axes, score: str, values: Sequence[float]) -> tuple[float, float]:
    """Show all that methods settle at; on a logarithmic axis where that spans more than a factor of eight."""
    from matplotlib.ticker import PercentFormatter

    if score == "accuracy":
        axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if not values:
        empty(axes, "no scores")
        return axes.get_ylim()
    low, high = min(values), max(values)
    if score != "accuracy" and low > 0 and high / low > 8:
        axes.set_yscale("log")
        axes.set_ylim(low / 1.2, high * 1.2)
        log_axis(axes, "y", ticks=8)
    else:
        margin = 0.06 * (high - low) or 0.05 * abs(high) or 0.1
        axes.set_ylim(low - margin, high + margin)
    return axes.get_ylim()


def _compute_axis(axes: Axes, unit: str, low: float, high: float) -> None:
    from matplotlib.ticker import EngFormatter

    axes.set_xscale("log")
    margin = 1.05 * (high / low) ** 0.04
    axes.set_xlim(low / margin, high * margin)
    log_axis(axes, "x", ticks=10, formatter=EngFormatter(sep=" "))
    axes.set_xlabel(f"compute of all trials ({UNIT_NAMES[unit]}, logarithmic)")
