"""Figures of a run: hyperparameters, losses with the generalization gap, reliability."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossreg.core.metrics import hyperparameter, hyperparameters_in
from crossreg.services.style import (
    BLUE,
    GREY,
    ORANGE,
    VERMILION,
    HyperparameterAxis,
    by_regularizer,
    count_bars,
    depth_colours,
    empty,
    finite,
    legend_beside,
    line_options,
    new_figure,
    plain,
    reliability_bars,
)
from crossreg.services.tracking.spool import History

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from crossreg.prediction.calibration import Reliability

__all__ = ["hyperparameter_trajectories", "losses", "reliability"]

_WIDTH = 9.0
# Heights of panels in inches; a panel of many lines needs more.
_LARGE, _MEDIUM, _SMALL = 4.4, 2.0, 1.2
_AROUND = 1.0
_MAX_LEGEND = {_LARGE: 12, _MEDIUM: 6}
_MAX_COLORBAR_LABELS = {_LARGE: 20, _MEDIUM: 6}
# The line style repeats the colour.
_LOSSES = (
    ("train/loss", "train", BLUE, "-"),
    ("reg/loss", "regularization", ORANGE, "--"),
    ("test/nll", "test", VERMILION, "-"),
)


def hyperparameter_trajectories(history: History, title: str = "Learned hyperparameters") -> Figure:
    """Draw every hyperparameter's value against the step, a panel for each regularizer, noise first.

    Where a regularizer has a value a layer or a weight, as noise has, the first one's line is light, the last one's
    dark.

    Args:
        history: a run's history, with the keys of `crossreg.core.metrics.hyperparameter`.
        title: the figure's title.
    """
    recorded = [name for name in hyperparameters_in(dict.fromkeys(history, 0.0)) if history[hyperparameter(name)][0]]
    found = by_regularizer(recorded)
    if not found:
        figure, (axes,) = _panels([_LARGE])
        axes.set_title(title)
        empty(axes, "no hyperparameters recorded yet")
        return figure
    heights = [_LARGE if base == "noise" else _MEDIUM if len(names) > 1 else _SMALL for base, names in found.items()]
    figure, panels = _panels(heights if len(heights) > 1 else [max(heights[0], _MEDIUM)])
    for axes, height, (base, names) in zip(panels, heights, found.items(), strict=True):
        on_axis = HyperparameterAxis.of(names[0] if height == _SMALL else base)
        colours: Sequence[Any] = [GREY] if height == _SMALL else depth_colours(len(names)).tolist()
        for name, colour in zip(names, colours, strict=True):
            steps, values = history[hyperparameter(name)]
            axes.plot(steps, on_axis.place(values), color=colour, label=name, **line_options(len(steps)))
        on_axis.apply(axes, ticks=max(4, round(2.5 * height)))
        axes.set_ylabel(on_axis.label(width=round(15 * height)), fontsize="medium" if height == _LARGE else "small")
        if height == _SMALL:
            continue
        if len(names) <= _MAX_LEGEND[height]:
            legend_beside(axes, title="first to last" if len(names) > 1 else None, fontsize="small")
        else:
            _depth_colorbar(figure, axes, names, colours, _MAX_COLORBAR_LABELS[height])
    panels[0].set_title(title)
    figure.align_ylabels(panels)
    return figure


def losses(history: History, title: str = "Losses and generalization gap") -> Figure:
    """Draw training, regularization and test loss, and below them the gap between test and training.

    Args:
        history: a run's history with `train/loss`, `reg/loss`, and `test/nll` or `test/loss`.
        title: the figure's title.
    """
    import numpy as np

    figure, (axes, gap_axes) = _panels([3.1, 1.5])
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for key, label, colour, style in _LOSSES:
        chosen = "test/loss" if key == "test/nll" and key not in history else key
        if history.get(chosen, ([], []))[0]:
            steps, values = history[chosen]
            found[label] = np.asarray(steps, float), finite(values)
            axes.plot(steps, found[label][1], color=colour, linestyle=style, label=label, **line_options(len(steps)))
    axes.set_ylabel("loss (nats)")
    axes.set_title(title)
    gap_axes.axhline(0, color=GREY, linewidth=0.8)
    gap_axes.set_ylabel("gap, test − train\n(nats)")
    if "train" in found and "test" in found:
        at, test = found["test"]
        train = np.interp(at, *found["train"])
        shade: dict[str, Any] = {"color": VERMILION, "alpha": 0.12, "linewidth": 0}
        axes.fill_between(at, train, test, label="generalization gap", **shade)
        gap_axes.plot(at, test - train, color=VERMILION, **line_options(len(at)))
        gap_axes.fill_between(at, 0, test - train, **shade)
        gap_axes.set_title(f"last: {(test - train)[-1]:+.3f}", loc="right", fontsize="small")
    else:
        empty(gap_axes, "needs train/loss and test/nll")
    if found:
        legend_beside(axes)
    else:
        empty(axes, "no losses recorded yet")
    return figure


def reliability(bins: Reliability, title: str = "Reliability") -> Figure:
    """Draw a reliability diagram: accuracy against confidence in each bin, and how many predictions it holds.

    Args:
        bins: the diagram's numbers.
        title: the figure's title; the expected calibration error is added.
    """
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    figure, (axes, counts) = _panels([4.1, 1.4], width=6.0)
    drawn = reliability_bars(axes, bins)
    axes.set(ylabel="accuracy", title=f"{title}: ECE {bins.ece:.3f}")
    # bars may be anywhere inside
    figure.legend(handles=drawn, loc="outside lower center", ncols=2, frameon=False)
    count = np.asarray(bins.count)
    count_bars(counts, bins.edges, count)
    counts.set_xlabel("confidence (mean probability of the predicted class)")
    counts.set_ylabel(f"predictions\n(n = {int(count.sum()):,})")
    for axis in (axes.xaxis, axes.yaxis, counts.xaxis):
        axis.set_major_formatter(PercentFormatter(1.0))
    if not count.any():
        empty(axes, "no predictions")
    return figure


def _panels(heights: Sequence[float], width: float = _WIDTH) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels of heights in inches, above one another, that share an x axis of steps."""
    figure = new_figure(width, sum(heights) + _AROUND)
    panels = list(figure.subplots(len(heights), 1, sharex=True, height_ratios=list(heights), squeeze=False)[:, 0])
    for axes in panels:
        plain(axes)
    panels[-1].set_xlabel("optimizer step")
    return figure, panels


def _depth_colorbar(figure: Figure, axes: Axes, names: Sequence[str], colours: Sequence[Any], max_labels: int) -> None:
    """Name the lines on a colour bar beside them, first on top; of many only evenly spaced ones, and the last."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = len(names)
    norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
    beside = axes.inset_axes((1.015, 0.0, 0.02, 1.0))
    bar = figure.colorbar(ScalarMappable(norm, ListedColormap(colours)), cax=beside)
    stride = -(-count // max_labels)
    shown = [*range(0, count - stride // 2 - 1, stride), count - 1]
    bar.set_ticks(shown, labels=[names[index] for index in shown])
    bar.ax.tick_params(labelsize="small", length=0)
    bar.ax.minorticks_off()
    bar.ax.invert_yaxis()
    named = "" if len(shown) == count else f", {len(shown)} of {count} named"
    bar.set_label(f"first on top{named}", fontsize="small")
