"""Learned noise scales next to the schedules of a population's members."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from services.style import BLACK, WINS, new_figure, plain, shorten
from services.comparison.report.groups import Group
from services.comparison.report.summary import Summary

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

    from services.search.outcome import Outcome
    from services.search.spec import Schedule

__all__ = ["schedules", "shown_layers"]

_LAYERS = 6
_SEARCHES = 2
_FLOOR = 1e-4
_PREFIX = "sigma/"


def schedules(groups: Sequence[Group], summary: Summary) -> Figure | None:
    """Draw a column for the reference and for each of up to two searches, a row a layer; None without noise scales."""
    columns = _columns(groups, summary.context.reference)
    layers = shown_layers([outcome for _, outcome in columns])
    if not layers:
        return None
    figure = new_figure(4.0 * len(columns) + 0.8 if len(columns) > 1 else 6.5, 1.2 * len(layers) + 1.3)
    panels = figure.subplots(len(layers), len(columns), sharex="col", sharey=True, squeeze=False)
    handles: dict[str, Any] = {}
    for place, (group, outcome) in enumerate(columns):
        end = _end(outcome)
        for axes, layer in zip(panels[:, place], layers, strict=True):
            for index, member in enumerate(outcome.members):
                label = "members" if index == 0 else None
                if line := _line(axes, member, layer, end, color="0.6", linewidth=0.9, label=label):
                    handles.setdefault("members", line)
            learned = not outcome.members
            name, colour = ("learned", BLACK) if learned else ("chosen", WINS)
            if line := _line(axes, outcome.schedule, layer, end, color=colour, linewidth=2.2, label=name):
                handles.setdefault(name, line)
            plain(axes)
        panels[0, place].set_title(f"{shorten(group.label, 34)}, seed {outcome.seed}", fontsize="medium")
        panels[-1, place].set_xlabel("optimizer step of a training")
    for axes, layer in zip(panels[:, 0], layers, strict=True):
        axes.set_yscale("log")
        axes.minorticks_off()
        axes.set_ylabel(shorten(layer.removeprefix(_PREFIX), 14), fontsize="small")
    figure.supylabel("noise scale σ, by layer", fontsize="medium")
    if len(handles) > 1:
        figure.legend(handles=list(handles.values()), loc="outside lower center", ncols=3, frameon=False)
    return figure


def shown_layers(outcomes: Sequence[Outcome]) -> list[str]:
    """Return the noise scales to show, first layer first: all up to six, of more six evenly spaced, with both ends."""
    found = sorted({key for o in outcomes for _, knobs in o.schedule for key in knobs if key.startswith(_PREFIX)})
    if len(found) <= _LAYERS:
        return found
    return [found[round(place * (len(found) - 1) / (_LAYERS - 1))] for place in range(_LAYERS)]


def _columns(groups: Sequence[Group], reference: str) -> list[tuple[Group, Outcome]]:
    """Return the reference and population-based searches, or other searches where there are none, at one seed."""

    def has_noise(outcome: Outcome) -> bool:
        return any(key.startswith(_PREFIX) for _, knobs in outcome.schedule for key in knobs)

    chosen = [group for group in groups if group.method == reference][:1]
    others = [group for group in groups if group.method != reference]
    searches = [group for group in others if any(outcome.members for outcome in group.outcomes.values())]
    populations = [group for group in searches if group.method.startswith(("pbt", "pb2"))]
    seeds = [seed for group in chosen or searches for seed, o in group.outcomes.items() if has_noise(o)]
    found: list[tuple[Group, Outcome]] = []
    for group in [*chosen, *(populations or searches)]:
        outcome = group.outcomes.get(seeds[0]) if seeds else None
        if outcome is not None and has_noise(outcome) and len(found) < len(chosen) + _SEARCHES:
            found.append((group, outcome))
    return found


def _end(outcome: Outcome) -> float:
    """Return the last step of a training: a schedule only says when its last values came into force."""
    starts = [step for schedule in [outcome.schedule, *outcome.members] for step, _ in schedule]
    trained = outcome.curve[-1].step / max(outcome.trials, 1) if outcome.curve else 0.0
    return max(trained, *starts, 1.0)


def _line(axes: Axes, schedule: Schedule, layer: str, end: float, **style: Any) -> Any:
    """Draw a layer's values as steps: each holds until the next."""
    points = [(step, max(knobs[layer], _FLOOR)) for step, knobs in schedule if layer in knobs]
    if not points:
        return None
    steps, values = zip(*[*points, (end, points[-1][1])], strict=True)
    return axes.plot(steps, values, drawstyle="steps-post", **style)[0]
