"""Hyperparameters that were learned, next to the schedules that a population's members were given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from crossreg.services.comparison.report.groups import Group
from crossreg.services.comparison.report.summary import Summary
from crossreg.services.style import (
    BLACK,
    LIGHT_GREY,
    WINS,
    HyperparameterAxis,
    by_regularizer,
    empty,
    new_figure,
    plain,
    shorten,
)

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from crossreg.services.comparison.outcome import Outcome
    from crossreg.services.search.spec import Schedule

__all__ = ["schedules", "shown_hyperparameters"]

_ROWS = 10
# of one regularizer that has a value a layer or a weight
_MAX_PARTS, _MIN_PARTS = 6, 2
_SEARCHES = 2
_UNIT_WIDTH = 27
"""Characters of a line of the labels."""


def schedules(groups: Sequence[Group], summary: Summary) -> Figure | None:
    """Draw hyperparameters against the step; None where there are none.

    The reference and up to two searches have a column each, every hyperparameter a row.
    """
    columns = _columns(groups, summary.context.reference)
    found = shown_hyperparameters([outcome for _, outcome in columns])
    names = [name for names in found.values() for name in names]
    if not names:
        return None
    figure = new_figure(2.0 + 3.7 * max(len(columns), 1.3), 1.2 * len(names) + 1.3)
    grid = figure.subplots(len(names), len(columns), sharex="col", squeeze=False)
    handles: dict[str, Any] = {}
    for (group, outcome), panels in zip(columns, grid.T, strict=True):
        for name, axes in zip(names, panels, strict=True):
            handles |= _draw(axes, outcome, name)
        panels[0].set_title(f"{shorten(group.label, 34)}, seed {outcome.seed}", fontsize="medium")
        panels[-1].set_xlabel("optimizer step of a training")
    for base, parts in found.items():
        first = names.index(parts[0])
        _align([axes for axes in grid[first : first + len(parts)].flat if axes.lines], base)
        for name, row in zip(parts, grid[first:], strict=False):
            # its unit is said once
            label = HyperparameterAxis.of(name).label(_UNIT_WIDTH) if name == parts[0] else name
            row[0].set_ylabel(label, rotation=0, ha="right", va="center", fontsize="small")
            for axes in [axes for axes in row if axes.lines][1:]:
                axes.tick_params(labelleft=False)
    figure.align_ylabels(grid[:, 0])
    if len(handles) > 1:
        figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=3, frameon=False)
    return figure


def shown_hyperparameters(outcomes: Sequence[Outcome]) -> dict[str, list[str]]:
    """Return the names of the hyperparameters to show, by regularizer, noise first: at most ten.

    Of a regularizer with more than six of them six are shown, or fewer where others need the room, evenly spaced, with
    the first and the last. What stays where it is from entry to entry is fixed, and is left out.
    """
    seen: dict[str, list[list[float]]] = {}
    for schedule in (schedule for outcome in outcomes for schedule in [outcome.schedule, *outcome.members]):
        for name in {name for _, values in schedule for name in values}:
            seen.setdefault(name, []).append([values[name] for _, values in schedule if name in values])
    found = by_regularizer({name for name, paths in seen.items() if not _is_fixed(paths)})
    counts = {base: min(len(parts), _MAX_PARTS) for base, parts in found.items()}
    while sum(counts.values()) > _ROWS:
        longest = max(counts, key=counts.__getitem__)
        if counts[longest] > _MIN_PARTS:
            counts[longest] -= 1
        else:
            counts.popitem()
    return {base: _evenly(found[base], count) for base, count in counts.items()}


def _is_fixed(paths: Sequence[Sequence[float]]) -> bool:
    return all(len(set(path)) == 1 for path in paths) and any(len(path) > 1 for path in paths)


def _evenly(parts: list[str], count: int) -> list[str]:
    """Return so many of the parts, with the first and the last."""
    return [parts[round(place * (len(parts) - 1) / max(count - 1, 1))] for place in range(count)]


def _columns(groups: Sequence[Group], reference: str) -> list[tuple[Group, Outcome]]:
    """Return the reference and population-based searches, or other searches where there are none, at one seed."""

    def has_values(outcome: Outcome) -> bool:
        return any(values for _, values in outcome.schedule)

    chosen = [group for group in groups if group.method == reference][:1]
    others = [group for group in groups if group.method != reference]
    searches = [group for group in others if any(outcome.members for outcome in group.outcomes.values())]
    populations = [group for group in searches if group.method.startswith(("pbt", "pb2"))]
    seeds = [seed for group in chosen or searches for seed, o in group.outcomes.items() if has_values(o)]
    found: list[tuple[Group, Outcome]] = []
    for group in [*chosen, *(populations or searches)]:
        outcome = group.outcomes.get(seeds[0]) if seeds else None
        if outcome is not None and has_values(outcome) and len(found) < len(chosen) + _SEARCHES:
            found.append((group, outcome))
    return found


def _draw(axes: Axes, outcome: Outcome, name: str) -> dict[str, Any]:
    """Draw a hyperparameter of all members and of the chosen one; return what was drawn, by its label."""
    drawn: dict[str, Any] = {}
    end = _end(outcome)
    for member in outcome.members:
        if line := _line(axes, member, name, end, color=LIGHT_GREY, linewidth=0.9, label="members"):
            drawn["members"] = line
    label, colour = ("chosen", WINS) if outcome.members else ("learned", BLACK)
    if line := _line(axes, outcome.schedule, name, end, color=colour, linewidth=2.2, label=label):
        drawn[label] = line
    plain(axes)
    if not drawn:
        empty(axes, "not in this method")
    return drawn


def _line(axes: Axes, schedule: Schedule, name: str, end: float, **style: Any) -> Any:
    """Draw a hyperparameter's values as steps: each holds until the next."""
    points = [(step, values[name]) for step, values in schedule if name in values]
    if not points:
        return None
    steps, values = zip(*[*points, (end, points[-1][1])], strict=True)
    return axes.plot(steps, HyperparameterAxis.of(name).place(values), drawstyle="steps-post", **style)[0]


def _end(outcome: Outcome) -> float:
    """Return the last step of a training: a schedule only says when its last values came into force."""
    starts = [step for schedule in [outcome.schedule, *outcome.members] for step, _ in schedule]
    trained = outcome.curve[-1].step / max(outcome.trials, 1) if outcome.curve else 0.0
    return max(trained, *starts, 1.0)


def _align(panels: Sequence[Axes], base: str) -> None:
    """Give the panels of a regularizer the same y axis."""
    on_axis = HyperparameterAxis.of(base)
    if on_axis.logarithmic:
        for axes in panels:
            axes.set_yscale("log")
    limits = [axes.get_ylim() for axes in panels]
    for axes in panels:
        axes.set_ylim(min(low for low, _ in limits), max(high for _, high in limits))
        on_axis.apply(axes, ticks=4)
