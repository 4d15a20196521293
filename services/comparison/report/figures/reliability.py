"""Reliability diagrams of all methods as small multiples."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.groups import Group
from crossreg.services.comparison.report.summary import Summary
from crossreg.services.style import count_bars, new_figure, plain, reliability_bars, shorten

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["Bins", "pooled", "reliability"]

_COLUMNS = 4


@dataclass(frozen=True)
class Bins:
    """The numbers of a reliability diagram of B bins.

    Attributes:
        confidence: mean over the predictions of each bin; NaN in an empty one.
        accuracy: the same.
        count: predictions in each bin.
        edges: of the bins, B + 1.
    """

    confidence: np.ndarray
    accuracy: np.ndarray
    count: np.ndarray
    edges: np.ndarray


def pooled(group: Group) -> Bins | None:
    """Return the bins of all seeds together: counts add up, means are weighted by them; None without any."""
    import numpy as np

    said = [outcome.reliability for outcome in group.outcomes.values() if outcome.reliability.get("count")]
    # only equal bins add up
    said = [bins for bins in said if bins["edges"] == said[0]["edges"]]
    counts = np.asarray([bins["count"] for bins in said], float)
    if not counts.sum() > 0:
        return None
    total = counts.sum(0)

    def mean(name: str) -> np.ndarray:
        values = np.asarray([[math.nan if v is None else v for v in bins[name]] for bins in said], float)
        sums = np.where(counts > 0, counts * np.nan_to_num(values), 0.0).sum(0)
        return np.where(total > 0, sums / np.maximum(total, 1.0), math.nan)

    return Bins(mean("confidence"), mean("accuracy"), total, np.asarray(said[0]["edges"], float))


def reliability(groups: Sequence[Group], summary: Summary) -> Figure | None:
    """Draw one small diagram a method and budget, seeds pooled; None where there are no bins."""
    found = [(group, row, bins) for group, row in zip(groups, summary.rows, strict=True) if (bins := pooled(group))]
    if not found:
        return None
    columns = min(_COLUMNS, len(found))
    lines = math.ceil(len(found) / columns)
    wide = columns > 1
    figure = new_figure(2.55 * columns + (0.4 if wide else 1.2), 3.15 * lines + (0.7 if wide else 1.1))
    grid = figure.add_gridspec(2 * lines, columns, height_ratios=[4, 1] * lines)
    largest = max(float(bins.count.max() / bins.count.sum()) for _, _, bins in found)
    handles: dict[str, Any] = {}
    for index, (group, row, bins) in enumerate(found):
        line, column = divmod(index, columns)
        axes = figure.add_subplot(grid[2 * line, column])
        counts = figure.add_subplot(grid[2 * line + 1, column], sharex=axes)
        handles |= {drawn.get_label(): drawn for drawn in _diagram(axes, bins)}
        _counts(counts, bins, largest)
        ece = row.scores["ece"].mean if "ece" in row.scores else math.nan
        axes.set_title(f"{shorten(group.label, 26)}\nECE {ece:.3f}", fontsize="medium")
        if column == 0:
            axes.set_ylabel("accuracy")
            counts.set_ylabel("share")
        else:
            axes.tick_params(labelleft=False)
            counts.tick_params(labelleft=False)
    figure.supxlabel("confidence (mean probability of the predicted class)", fontsize="medium")
    # methods differ in what there is to name
    drawn, columns = list(handles.values()), 2 if wide else 1
    figure.legend(handles=drawn, loc="outside upper center", ncols=columns, frameon=False, fontsize="small")
    return figure


def _diagram(axes: Axes, bins: Bins) -> list[Any]:
    """Draw the upper panel; return what its legend names."""
    drawn = reliability_bars(axes, bins)
    axes.set(xticks=[0, 0.5, 1], yticks=[0, 0.5, 1])
    for axis in (axes.xaxis, axes.yaxis):
        axis.set_major_formatter("{x:.2g}")
    axes.tick_params(labelbottom=False)
    plain(axes)
    return drawn


def _counts(axes: Axes, bins: Bins, largest: float) -> None:
    """Draw the lower panel, up to the largest share of all methods."""
    from matplotlib.ticker import PercentFormatter

    count_bars(axes, bins.edges, bins.count / max(bins.count.sum(), 1.0))
    axes.set(ylim=(0, 1.1 * largest), yticks=[0, largest])
    axes.yaxis.set_major_formatter(PercentFormatter(1.0, decimals=0))
    plain(axes)
