"""Figures of a run: noise scales by depth, losses with the generalization gap, reliability.

Matplotlib's object interface without pyplot: no global state, no display, safe in a thread.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossreg.prediction.calibration import Reliability
from crossreg.core.metrics import TEMPERATURE
from services.tracking.spool import History

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["losses", "reliability", "sigma_trajectories"]

_MAX_LEGEND = 12
_MAX_COLORBAR_LABELS = 20
_GREY = "0.35"
# Okabe and Ito's colours, told apart with every common form of colour blindness; the line style repeats them.
_LOSSES = (
    ("train/loss", "train", "#0072B2", "-"),
    ("reg/loss", "regularization", "#E69F00", "--"),
    ("test/nll", "test", "#D55E00", "-"),
)


def sigma_trajectories(history: History, title: str = "Learned noise scales") -> Figure:
    """Draw the noise scale of every layer against the step; the first layer is light, the last dark.

    A second panel shows the output temperature where the run learned one.

    Args:
        history: a run's history; keys `sigma/...` sort by depth.
        title: the figure's title.
    """
    import matplotlib as mpl
    import numpy as np

    layers = sorted(key for key in history if key.startswith("sigma/") and history[key][0])
    heights = [3, 1] if TEMPERATURE in history else [1]
    figure, panels = _figure(heights)
    axes = panels[0]
    # The lightest tenth of the map is too faint for a line on white.
    colours = mpl.colormaps["viridis_r"](np.linspace(0.08, 1.0, max(len(layers), 2)))[: len(layers)]
    for index, key in enumerate(layers):
        steps, values = history[key]
        # A scale that collapsed to zero has no place on a logarithmic axis; it is drawn at the bottom.
        axes.plot(steps, np.maximum(_numbers(values), 1e-6), color=colours[index], label=_layer(key), **_line(steps))
    axes.set_yscale("log")
    axes.set_ylabel("noise scale σ (normalized activations)")
    axes.set_title(title)
    if not layers:
        _empty(axes, "no noise scales recorded yet")
    elif len(layers) <= _MAX_LEGEND:
        axes.legend(title="layer, first to last", **_beside())
    else:
        _depth_colorbar(figure, axes, [_layer(key) for key in layers], colours)
    if TEMPERATURE in history:
        steps, values = history[TEMPERATURE]
        panels[1].plot(steps, values, color=_GREY, **_line(steps))
        panels[1].set_ylabel("temperature")
    return figure


def losses(history: History, title: str = "Losses and generalization gap") -> Figure:
    """Draw training, regularization and test loss, and below them the gap between test and training.

    Args:
        history: a run's history with `train/loss`, `reg/loss`, and `test/nll` or `test/loss`.
        title: the figure's title.
    """
    import numpy as np

    figure, (axes, gap_axes) = _figure([2, 1])
    found: dict[str, tuple[np.ndarray, np.ndarray]] = {}
    for key, label, colour, style in _LOSSES:
        chosen = "test/loss" if key == "test/nll" and key not in history else key
        if history.get(chosen, ([], []))[0]:
            steps, values = history[chosen]
            found[label] = np.asarray(steps, float), _numbers(values)
            axes.plot(steps, found[label][1], color=colour, linestyle=style, label=label, **_line(steps))
    axes.set_ylabel("loss (nats)")
    axes.set_title(title)
    gap_axes.axhline(0, color=_GREY, linewidth=0.8)
    gap_axes.set_ylabel("gap, test − train\n(nats)")
    if "train" in found and "test" in found:
        at, test = found["test"]
        train = np.interp(at, *found["train"])
        axes.fill_between(at, train, test, color="#D55E00", alpha=0.12, linewidth=0, label="generalization gap")
        gap_axes.plot(at, test - train, color="#D55E00", **_line(at))
        gap_axes.fill_between(at, 0, test - train, color="#D55E00", alpha=0.12, linewidth=0)
        last = (test - train)[-1]
        gap_axes.set_title(f"last: {last:+.3f}", loc="right", fontsize="small")
    else:
        _empty(gap_axes, "needs train/loss and test/nll")
    if found:
        axes.legend(**_beside())
    else:
        _empty(axes, "no losses recorded yet")
    return figure


def reliability(bins: Reliability, title: str = "Reliability") -> Figure:
    """Draw a reliability diagram: accuracy against confidence in each bin, and how many predictions it holds.

    Args:
        bins: the diagram's numbers.
        title: the figure's title; the expected calibration error is added.
    """
    import numpy as np
    from matplotlib.ticker import PercentFormatter

    figure, (axes, counts) = _figure([3, 1], width=6.0, height=6.4)
    edges, count = np.asarray(bins.edges, float), np.asarray(bins.count)
    confidence, accuracy = np.asarray(bins.confidence, float), np.asarray(bins.accuracy, float)
    filled = count > 0
    left, width = edges[:-1][filled], np.diff(edges)[filled]
    bar: dict[str, Any] = {"align": "edge", "edgecolor": "white", "linewidth": 0.8}
    axes.bar(left, accuracy[filled], width, color="#56B4E9", label="accuracy", **bar)
    missing = confidence[filled] - accuracy[filled]
    axes.bar(
        left, missing, width, bottom=accuracy[filled], color="#D55E00", alpha=0.35, hatch="///",
        label="confidence − accuracy", **bar,
    )  # fmt: skip
    axes.plot([0, 1], [0, 1], color=_GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1), ylabel="accuracy", title=f"{title}: ECE {bins.ece:.3f}")
    axes.legend(loc="upper left", frameon=False)
    counts.bar(edges[:-1], count, np.diff(edges), color="0.6", **bar)
    counts.set_xlabel("confidence (mean probability of the predicted class)")
    counts.set_ylabel(f"predictions\n(n = {int(count.sum()):,})")
    for panel in (axes, counts):
        panel.xaxis.set_major_formatter(PercentFormatter(1.0))
    axes.yaxis.set_major_formatter(PercentFormatter(1.0))
    if not filled.any():
        _empty(axes, "no predictions")
    return figure


def _figure(heights: Sequence[float], width: float = 9.0, height: float = 5.6) -> tuple[Figure, list[Axes]]:
    """Return a figure of panels that share their x axis, labelled for steps."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    grid = figure.subplots(len(heights), 1, sharex=True, height_ratios=list(heights), squeeze=False)
    panels = list(grid[:, 0])
    for axes in panels:
        axes.grid(True, color="0.9", linewidth=0.8)
        axes.set_axisbelow(True)
        axes.spines[["top", "right"]].set_visible(False)
    panels[-1].set_xlabel("optimizer step")
    return figure, panels


def _line(steps: Sequence[int] | np.ndarray) -> dict[str, Any]:
    # A single point makes no line, so it needs a marker to be seen.
    return {"linewidth": 1.6, "marker": "o" if len(steps) < 2 else None, "markersize": 4}


def _beside() -> dict[str, Any]:
    return {"loc": "upper left", "bbox_to_anchor": (1.01, 1.0), "borderaxespad": 0.0, "frameon": False}


def _layer(key: str) -> str:
    return key.removeprefix("sigma/")


def _numbers(values: Sequence[float]) -> np.ndarray:
    """Return the values with infinities as gaps: one would flatten everything else."""
    import numpy as np

    numbers = np.asarray(values, float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


def _empty(axes: Axes, text: str) -> None:
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=_GREY)


def _depth_colorbar(figure: Figure, axes: Axes, names: Sequence[str], colours: np.ndarray) -> None:
    """Name the layers on a colour bar, first on top; of many layers only evenly spaced ones, and the last."""
    import numpy as np
    from matplotlib.cm import ScalarMappable
    from matplotlib.colors import BoundaryNorm, ListedColormap

    count = len(names)
    norm = BoundaryNorm(np.arange(count + 1) - 0.5, count)
    bar = figure.colorbar(ScalarMappable(norm, ListedColormap(colours)), ax=axes, pad=0.02, aspect=30)
    stride = -(-count // _MAX_COLORBAR_LABELS)
    shown = [*range(0, count - stride // 2 - 1, stride), count - 1]
    bar.set_ticks(shown, labels=[names[index] for index in shown])
    bar.ax.tick_params(labelsize="small", length=0)
    bar.ax.minorticks_off()
    bar.ax.invert_yaxis()
    bar.set_label(f"layer ({count}), first on top")
