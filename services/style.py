"""How every figure looks, be it of a run, a report or a study: canvas, axes, colours, line styles.

Matplotlib's object interface without pyplot: no global state, no display, safe in a thread. Importing this module does
not load matplotlib.
"""

from __future__ import annotations

import math
import re
import textwrap
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, Protocol

from crossreg.core.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure
    from matplotlib.legend import Legend
    from matplotlib.ticker import Formatter

    from crossreg.regularizers.base import Hyperparameter

__all__ = [
    "BLACK",
    "BLUE",
    "COLOURS",
    "GREEN",
    "GREY",
    "LIGHT_GREY",
    "LOSES",
    "OLIVE",
    "ORANGE",
    "PINK",
    "REFERENCE_MARKER",
    "SKY",
    "VERMILION",
    "WINE",
    "WINS",
    "HyperparameterAxis",
    "LineStyle",
    "by_regularizer",
    "count_bars",
    "depth_colours",
    "empty",
    "finite",
    "legend_beside",
    "line_options",
    "line_styles",
    "log_axis",
    "new_figure",
    "plain",
    "reliability_bars",
    "shorten",
]

BLACK = "0.0"
GREY = "0.35"
"""Of lines and words that explain: zero, the diagonal, "no data"."""
LIGHT_GREY = "0.6"
"""Of what stays in the background: counts, single members."""
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933")
"""Of methods, in this order. Six are Okabe and Ito's, told apart with every common form of colour blindness (their
yellow is too faint on white), two Paul Tol's muted ones."""
BLUE, VERMILION, GREEN, PINK, ORANGE, SKY, WINE, OLIVE = COLOURS
WINS, LOSES = BLUE, VERMILION

# The shape tells apart methods that share a colour, the dashes the lines of a method.
REFERENCE_MARKER = "*"
_MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p", "h", "d", "8", "H")
_DASHES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
# Within every power of ten, the densest first.
_TICKS = ((1.0, 2.0, 3.0, 4.0, 5.0, 7.0), (1.0, 2.0, 5.0), (1.0, 3.0), (1.0,))


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, with a canvas that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, grid: Literal["both", "x", "y"] = "both") -> None:
    """Give axes a light grid and no frame above and on the right."""
    axes.grid(True, axis=grid, color="0.9", linewidth=0.8)
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def log_axis(axes: Axes, which: Literal["x", "y"], ticks: int, formatter: Formatter | str = "{x:g}") -> None:
    """Make an axis logarithmic, with ticks as dense as there is room for.

    They are at the same numbers within every power of ten, or evenly spaced where the axis is too short for that.

    Args:
        axes: with everything drawn, or with limits set.
        which: of the two axes.
        ticks: how many there is room for.
        formatter: of their labels.
    """
    from matplotlib.ticker import LogLocator, MaxNLocator, NullFormatter, NullLocator

    axis = axes.xaxis if which == "x" else axes.yaxis
    (axes.set_xscale if which == "x" else axes.set_yscale)("log")
    low, high = axes.get_xlim() if which == "x" else axes.get_ylim()
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    counts = {within: sum(low <= first * 10.0**p <= high for p in powers for first in within) for within in _TICKS}
    chosen = next((within for within, count in counts.items() if count <= ticks), None)
    if counts[_TICKS[0]] < 3:
        axis.set_major_locator(MaxNLocator(ticks, steps=[1, 2, 2.5, 5, 10]))
    else:
        axis.set_major_locator(LogLocator(subs=chosen, numticks=100) if chosen else LogLocator(numticks=ticks))
    axis.set_major_formatter(formatter)
    axis.set_minor_locator(NullLocator())
    axis.set_minor_formatter(NullFormatter())


def empty(axes: Axes, text: str) -> None:
    """Say in the middle of axes why nothing is drawn there, and take away their grid and the numbers of y."""
    axes.grid(False)
    axes.tick_params(axis="y", which="both", left=False, labelleft=False)
    axes.text(0.5, 0.5, text, transform=axes.transAxes, ha="center", va="center", color=GREY)


def legend_beside(axes: Axes, **options: Any) -> Legend:
    """Put a legend to the right of axes; options are those of `Axes.legend`."""
    return axes.legend(loc="upper left", bbox_to_anchor=(1.01, 1.0), borderaxespad=0.0, frameon=False, **options)


def shorten(text: str, limit: int) -> str:
    """Cut a text to a limit of characters; the end shows that it was cut. A dollar sign is no formula."""
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")


@dataclass(frozen=True)
class LineStyle:
    """How one line of a method is drawn.

    Attributes:
        colour: of line and marker.
        marker: the marker's shape.
        dashes: as Matplotlib's `linestyle`.
        filled: the marker is filled, not hollow.
    """

    colour: str
    marker: str
    dashes: Any
    filled: bool

    @property
    def line(self) -> dict[str, Any]:
        """Matplotlib's options of the line."""
        width = 2.4 if self.marker == REFERENCE_MARKER else 1.5
        return {"color": self.colour, "linestyle": self.dashes, "linewidth": width}

    @property
    def marks(self) -> dict[str, Any]:
        """Matplotlib's options of the marker."""
        return {
            "marker": self.marker,
            "markersize": 11 if self.marker == REFERENCE_MARKER else 7,
            "markerfacecolor": self.colour if self.filled else "white",
            # the white edge keeps markers apart that lie on one another
            "markeredgecolor": "white" if self.filled else self.colour,
            "markeredgewidth": 0.7 if self.filled else 1.6,
        }


def line_styles(methods: Sequence[str], reference: str) -> list[LineStyle]:
    """Return a style for every line of a figure.

    All lines of a method have its colour and marker and differ in dashes; the markers of the first are filled. The
    reference is black, with a star.

    Args:
        methods: the method of each line; one with several lines (a line for each budget) comes several times.
        reference: the method that the others are compared with.
    """
    places = {method: place for place, method in enumerate(dict.fromkeys(m for m in methods if m != reference))}
    seen: Counter[str] = Counter()
    found = []
    for method in methods:
        colour, marker = BLACK, REFERENCE_MARKER
        if method != reference:
            colour, marker = COLOURS[places[method] % len(COLOURS)], _MARKERS[places[method] % len(_MARKERS)]
        found.append(LineStyle(colour, marker, _DASHES[seen[method] % len(_DASHES)], filled=seen[method] == 0))
        seen[method] += 1
    return found


def line_options(num_points: int) -> dict[str, Any]:
    """Return Matplotlib's options of a curve; a single point makes no line, so it has a marker."""
    return {"linewidth": 1.6, "marker": "o" if num_points < 2 else None, "markersize": 4}


def depth_colours(count: int) -> np.ndarray:
    """Return colours for layers, the first light and the last dark: an array [count, 4]."""
    import matplotlib as mpl
    import numpy as np

    # the lightest tenth of the map is too faint for a line on white
    return np.asarray(mpl.colormaps["viridis_r"](np.linspace(0.08, 1.0, max(count, 2)))[:count])


def finite(values: Iterable[float]) -> np.ndarray:
    """Return the values with a gap (NaN) for each that is infinite: one would flatten everything else."""
    import numpy as np

    numbers = np.asarray([*values], float)
    return np.where(np.isfinite(numbers), numbers, np.nan)


class _Bins(Protocol):
    """The numbers of a reliability diagram, as arrays or tensors; see `crossreg.prediction.calibration.Reliability`."""

    @property
    def confidence(self) -> Any: ...
    @property
    def accuracy(self) -> Any: ...
    @property
    def count(self) -> Any: ...
    @property
    def edges(self) -> Any: ...


def reliability_bars(axes: Axes, bins: _Bins) -> list[Any]:
    """Draw the accuracy of every bin, how far its confidence is above or below it, and the diagonal of no difference.

    Returns:
        What was drawn, for a legend: accuracy, the differences that there are, diagonal.
    """
    import numpy as np

    filled = np.asarray(bins.count) > 0
    left, right = np.asarray(bins.edges, float)[:-1][filled], np.asarray(bins.edges, float)[1:][filled]
    accuracy, confidence = np.asarray(bins.accuracy, float)[filled], np.asarray(bins.confidence, float)[filled]
    drawn = [_bars(axes, left, right, accuracy, color=SKY, label="accuracy")]
    gaps = (
        (confidence > accuracy, VERMILION, 0.5, "////", "confidence above accuracy"),
        (confidence < accuracy, BLUE, 1.0, r"\\\\", "confidence below accuracy"),
    )
    for where, colour, alpha, hatch, label in gaps:
        if where.any():
            low, high = np.sort([accuracy[where], confidence[where]], axis=0)
            look = {"color": colour, "alpha": alpha, "hatch": hatch, "label": label}
            drawn.append(_bars(axes, left[where], right[where], high - low, bottom=low, **look))
    (diagonal,) = axes.plot([0, 1], [0, 1], color=GREY, linestyle="--", linewidth=1, label="perfectly calibrated")
    axes.set(xlim=(0, 1), ylim=(0, 1))
    return [*drawn, diagonal]


def count_bars(axes: Axes, edges: Any, heights: Any) -> None:
    """Draw how much lies in each bin.

    Args:
        axes: where.
        edges: of the bins: one more than heights.
        heights: of the bars.
    """
    import numpy as np

    edges = np.asarray(edges, float)
    _bars(axes, edges[:-1], edges[1:], heights, color=LIGHT_GREY)


def _bars(axes: Axes, left: np.ndarray, right: np.ndarray, heights: Any, **options: Any) -> Any:
    return axes.bar(left, heights, right - left, align="edge", edgecolor="white", linewidth=0.7, **options)


@dataclass(frozen=True)
class HyperparameterAxis:
    """How the values of a hyperparameter lie on an axis, as its description says; see `of`.

    Attributes:
        name: the hyperparameter's, or the regularizer's.
        unit: of its values; empty where nothing describes it.
        logarithmic: whether the axis is.
        floor: where values lie that a logarithmic axis has no place for, such as zero.
    """

    name: str
    unit: str
    logarithmic: bool
    floor: float

    @classmethod
    def of(cls, name: str) -> HyperparameterAxis:
        """Return the axis of a hyperparameter; of one that the registry does not know a linear one without a unit."""
        described = _described(name)
        if described is None:
            return cls(name, "", False, 0.0)
        return cls(name, described.unit, described.scale == "log", described.range[0] / 1000)

    def place(self, values: Iterable[float]) -> np.ndarray:
        """Return where values are drawn: infinities as gaps, and nothing below the floor of a logarithmic axis."""
        import numpy as np

        numbers = finite(values)
        return np.maximum(numbers, self.floor) if self.logarithmic else numbers

    def label(self, width: int) -> str:
        """Return name and unit, in lines of so many characters."""
        unit = textwrap.fill(f"({self.unit})", width) if self.unit else ""
        return f"{self.name}\n{unit}".strip()

    def apply(self, axes: Axes, ticks: int) -> None:
        """Set the y axis of axes in which everything is drawn; `ticks` says how many there is room for."""
        if self.logarithmic:
            log_axis(axes, "y", ticks)
        else:
            axes.locator_params(axis="y", nbins=ticks)


def by_regularizer(names: Iterable[str]) -> dict[str, list[str]]:
    """Return names of hyperparameters by the regularizer that they are of: `{"noise": ["noise/00_norm1", ...]}`.

    Regularizers come in the order of the registry, noise first, and those it does not know last; the parts of each by
    depth, as their names begin with it.
    """
    from crossreg.regularizers.registry import REGISTRY

    order = [*REGISTRY]
    names = sorted(names, key=lambda name: [int(s) if s.isdigit() else s for s in re.split(r"(\d+)", name)])
    bases = sorted({name.partition("/")[0] for name in names})
    bases.sort(key=lambda base: order.index(base) if base in order else len(order))
    return {base: [name for name in names if name.partition("/")[0] == base] for base in bases}


def _described(name: str) -> Hyperparameter | None:
    from crossreg.regularizers.registry import description

    # of two modules with the same hyperparameter the second's is called `l2_1`
    base = re.sub(r"_\d+$", "", name.partition("/")[0])
    try:
        return description(base)
    except UserError:
        return None
