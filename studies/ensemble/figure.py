"""What ensembles gain, and what penalties between their networks do."""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING

from crossreg.services.style import LOSES, WINS, new_figure, plain
from crossreg.studies.claims import interval
from crossreg.studies.ensemble.claims import differences
from crossreg.studies.ensemble.scenes import CORRELATED, SAME_ROWS, WIDE
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

__all__ = ["draw"]


def draw(rows: list[Measurement]) -> Figure:
    """Draw differences in NLL with their intervals, and the correlation of errors over weights of diversity."""
    figure = new_figure(10, 6)
    left, right = figure.subplots(1, 2, gridspec_kw={"width_ratios": (3, 2), "wspace": 0.3})
    ensembles = [
        (f"{scene}: four against {said}", differences(rows, scene, "four", base, "nll"))
        for scene in ("digits", "fashion", "watch")
        for base, said in (("one", "one"), (WIDE, "a wide one"))
    ]
    penalties = [
        (f"persons: {arm}", differences(rows, "persons", arm, SAME_ROWS, "nll"))
        for scene, arm in groups(rows, "scene", "arm")
        if scene == "persons" and arm != SAME_ROWS
    ]
    _differences(left, [one for one in (*ensembles, *penalties) if one[1]])
    correlations = [[row["error_correlation"] for row in those(rows, scene="persons", arm=arm)] for arm in CORRELATED]
    found = [[value for value in some if value is not None] for some in correlations]
    if all(found):
        for place, values in enumerate(found):
            right.plot([place] * len(values), values, "o", color=WINS, markersize=3, alpha=0.5)
        right.plot(range(len(found)), [statistics.mean(values) for values in found], "D-", color=WINS, markersize=6)
        right.set_xticks(range(len(found)), ["0", *(arm.removeprefix("diversity ") for arm in CORRELATED[1:])])
    right.set_xlabel("diversity")
    right.set_ylabel("errors of LSTM and CNN correlate")
    plain(right)
    return figure


def _differences(axes: Axes, found: list[tuple[str, list[float]]]) -> None:
    for place, (_, values) in enumerate(reversed(found)):
        mean, half = interval(values)
        colour = WINS if mean + half < 0 else LOSES if mean - half > 0 else "0.5"
        axes.plot(values, [place] * len(values), "o", color=colour, markersize=3, alpha=0.4)
        known = [half] if half < float("inf") else None
        axes.errorbar([mean], [place], xerr=known, fmt="D", color=colour, markersize=5)
    axes.axvline(0, color="0.4", linewidth=0.8)
    axes.set_yticks(range(len(found)), [name for name, _ in reversed(found)])
    axes.set_xlabel("difference in NLL (nats; left of 0 is better)")
    plain(axes)
