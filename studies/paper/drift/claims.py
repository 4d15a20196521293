"""What is claimed of a stream of tasks; a claim is shown where it is so in every stream."""

from __future__ import annotations

import itertools
import math
import statistics
from collections.abc import Callable
from typing import Any

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

__all__ = ["CLAIMS", "TASKS", "at_hand", "at_the_end", "forgetting"]

TASKS = 4
FORGETTING_MARGIN = 0.01
"""Of accuracy: so little more forgotten counts as no more."""
_WINDOW = 0.2  # of a task, after a switch and before it


def at_hand(rows: list[Measurement], key: str) -> dict[int, float]:
    """Return by seed the mean over tasks of a score on the task just learned; rows are of one stream and arm."""
    return _by_seed([row for row in rows if row["tested"] == row["task"]], key)


def at_the_end(rows: list[Measurement], key: str) -> dict[int, float]:
    """Return by seed the mean over all earlier tasks of a score after the last one."""
    return _by_seed([row for row in rows if row["tested"] < row["task"] == TASKS - 1], key)


def forgetting(rows: list[Measurement]) -> dict[int, float]:
    """Return by seed how much accuracy earlier tasks lost until the end, of that right after they were learned."""
    learned = _by_seed([row for row in rows if row["tested"] == row["task"] < TASKS - 1], "accuracy")
    kept = at_the_end(rows, "accuracy")
    return {seed: learned[seed] - kept[seed] for seed in kept}


def _by_seed(rows: list[Measurement], key: str) -> dict[int, float]:
    return {seed: statistics.mean(row[key] for row in those(rows, seed=seed)) for (seed,) in groups(rows, "seed")}


def _against(other: str, measure: Callable[[list[Measurement]], dict[int, float]], below: float, what: str) -> Any:
    """Return the judge of: the learned run is above another by less than so much, in all streams.

    Args:
        other: arm.
        measure: returns a number by seed, of which less is better.
        below: the bound.
        what: is measured, in the evidence; a share counts in points where it ends in "points".
    """
    scale, digits = (100, 1) if what.endswith("points") else (1, 4)

    def judge(rows: list[Measurement]) -> Verdict | None:
        said, shown = [], []
        for (name,) in groups(rows, "stream"):
            mine, theirs = (measure(those(rows, stream=name, arm=arm)) for arm in ("learned", other))
            apart = [value - theirs[seed] for seed, value in mine.items() if seed in theirs]
            if not apart:
                return None
            mean, half = interval(apart)
            shown.append(mean + half < below)
            said.append(f"{name} {with_interval(scale * mean, scale * half, digits)}")
        return Verdict(all(shown), f"{what} {', '.join(said)}") if said else None

    return judge


def _follows(rows: list[Measurement]) -> Verdict | None:
    """Compare how far sigma goes after a switch with how far it went before, and held-out loss likewise."""
    said, shown = [], []
    for (name,) in groups(rows, "stream"):
        moves, rises = [], []
        mine = [row for row in those(rows, stream=name, arm="learned") if row["tested"] == row["task"]]
        for (seed,) in groups(mine, "seed"):
            curves = [row["curve"] for row in sorted(those(mine, seed=seed), key=lambda row: row["task"])]
            pairs = list(itertools.pairwise(curves))
            if pairs:
                moves.append(statistics.mean(_move(*pair) for pair in pairs))
                rises.append(statistics.mean(_rise(*pair) for pair in pairs))
        if not moves:
            return None
        (move, half), (rise, rise_half) = interval(moves), interval(rises)
        shown.append(move - half > 0 and rise - rise_half > 0)
        moved, rose = with_interval(move, half, 2), with_interval(rise, rise_half, 2)
        said.append(f"{name} |log sigma| moves {moved} further, held-out loss rises {rose}")
    return Verdict(all(shown), "; ".join(said)) if said else None


def _move(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> float:
    """Return by how much further sigma goes in the first fifth after a switch than in the last before it."""
    few = _few(before)
    start, switch, end = (look["sigma"] for look in (before[-1 - few], before[-1], after[_few(after) - 1]))
    return _distance(switch, end) - _distance(start, switch)


def _rise(before: list[dict[str, Any]], after: list[dict[str, Any]]) -> float:
    """Return by how much held-out loss is higher at the first update after a switch than in the last fifth before."""
    return float(after[0]["loss"] - statistics.mean(look["loss"] for look in before[-_few(before) :]))


def _few(curve: list[dict[str, Any]]) -> int:
    return min(max(1, round(_WINDOW * len(curve))), len(curve) - 1)


def _distance(one: list[float], other: list[float]) -> float:
    return statistics.mean(abs(math.log(a / b)) for a, b in zip(one, other, strict=True))


CLAIMS = (
    Claim("follows", "at a switch held-out loss rises and sigma moves", _follows),
    Claim(
        "forgets",
        f"no more is forgotten than without noise (at most {100 * FORGETTING_MARGIN:g} point of accuracy)",
        _against("none", forgetting, FORGETTING_MARGIN, "forgotten points"),
    ),
    Claim(
        "calibrated",
        "it is better calibrated on the task at hand than without noise",
        _against("none", lambda rows: at_hand(rows, "ece"), 0.0, "ECE"),
    ),
    Claim(
        "beside temperature",
        "the same against a learned temperature alone",
        _against("temperature", lambda rows: at_hand(rows, "ece"), 0.0, "ECE"),
    ),
    Claim(
        "adapting",
        "on the task at hand it is better than with what was learned in the first one",
        _against("frozen", lambda rows: at_hand(rows, "nll"), 0.0, "NLL"),
    ),
)
