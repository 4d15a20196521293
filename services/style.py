"""What the figures of a report share: canvas, axes, colours. Matplotlib's object interface without pyplot."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from services.comparison.report.groups import Group

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["BLACK", "GREY", "LOSES", "REFERENCE_MARKER", "WINS", "LineStyle", "line_styles", "new_figure", "plain", "shorten"]

GREY = "0.35"
BLACK = "0.0"
# Okabe and Ito's colours, told apart with every common form of colour blindness, but yellow, too faint on white;
# then two of Paul Tol's muted ones.
WINS, LOSES = "#0072B2", "#D55E00"
_COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#882255", "#999933")
# The shape tells apart methods that share a colour, the line style the budgets of a method.
REFERENCE_MARKER = "*"
_MARKERS = ("o", "s", "^", "D", "v", "<", ">", "p", "h", "d", "8", "H")
_STYLES = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))


@dataclass(frozen=True)
class LineStyle:
    """How a method under a budget is drawn."""

    colour: str
    marker: str
    style: Any
    filled: bool

    @property
    def line(self) -> dict[str, Any]:
        """Matplotlib's options of its line."""
        width = 2.4 if self.marker == REFERENCE_MARKER else 1.5
        return {"color": self.colour, "linestyle": self.style, "linewidth": width}

    @property
    def marks(self) -> dict[str, Any]:
        """Matplotlib's options of its marker."""
        return {
            "marker": self.marker,
            "markersize": 11 if self.marker == REFERENCE_MARKER else 7,
            "markerfacecolor": self.colour if self.filled else "white",
            # the white edge keeps markers apart that lie on one another
            "markeredgecolor": "white" if self.filled else self.colour,
            "markeredgewidth": 0.7 if self.filled else 1.6,
        }


def line_styles(groups: Sequence[Group], reference: str) -> list[LineStyle]:
    """Return a look for each group: a colour and marker by method, a line style by budget; the reference is black."""
    methods = [*dict.fromkeys(group.method for group in groups if group.method != reference)]
    found = []
    for index, group in enumerate(groups):
        budget = [other.method for other in groups[:index]].count(group.method)
        style = _STYLES[budget % len(_STYLES)]
        if group.method == reference:
            found.append(LineStyle(BLACK, REFERENCE_MARKER, style, budget == 0))
        else:
            place = methods.index(group.method)
            colour, marker = _COLOURS[place % len(_COLOURS)], _MARKERS[place % len(_MARKERS)]
            found.append(LineStyle(colour, marker, style, budget == 0))
    return found


def new_figure(width: float, height: float) -> Figure:
    """Return an empty figure of a size in inches, with a canvas that needs no display."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    FigureCanvasAgg(figure)
    return figure


def plain(axes: Axes, grid: str = "both") -> None:
    """Give axes a light grid and no frame above and on the right."""
    axes.grid(True, axis=grid, color="0.9", linewidth=0.8)  # type: ignore[arg-type]
    axes.set_axisbelow(True)
    axes.spines[["top", "right"]].set_visible(False)


def shorten(text: str, limit: int) -> str:
    """Cut a text to a limit of characters; the end shows that it was cut. A dollar sign is no formula."""
    return (text if len(text) <= limit else text[: limit - 1] + "…").replace("$", r"\$")
