"""What the paper says of where noise goes, and when it counts as shown."""

from __future__ import annotations

import math
import statistics
from typing import Any

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.paired import differences
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

__all__ = ["CLAIMS", "FROZEN", "OF_NETWORK", "REPLAYED", "STARTS", "gap"]

STARTS = (0.01, 1.0)
"""Initial sigmas beside the default, 0.1."""
OF_NETWORK = {
    "vgg": ("none", "learned", "noise alone", *(f"from {start:g}" for start in STARTS)),
    "resnet": ("none", "learned", "noise alone"),
}
FROZEN, REPLAYED = "last sigmas, frozen", "schedule replayed"
_LATE = 0.2  # of the training: two moments so near count as the same


def gap(look: dict[str, Any]) -> float:
    """Return by how much accuracy on training images is above that on test images."""
    return float(look["train/accuracy"] - look["test/accuracy"])


def _with_depth(arm: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        from scipy.stats import spearmanr

        mine = those(rows, network="vgg", arm=arm)
        if not mine:
            return None
        ends = [row["curve"][-1]["sigma"] for row in mine]
        ranks = [float(spearmanr(range(len(sigma)), sigma).statistic) for sigma in ends]
        mean, half = interval(ranks)
        spread = f"{min(map(min, ends)):.2g} to {max(map(max, ends)):.2g}"
        return Verdict(
            mean - half > 0, f"rank correlation of sigma with depth {with_interval(mean, half, 2)}, sigma {spread}"
        )

    return judge


def _large(rows: list[Measurement]) -> Verdict | None:
    mine = [row for row in rows if row["arm"] == "noise alone"]
    if not mine:
        return None
    largest = {network: [max(r["curve"][-1]["sigma"]) for r in those(mine, network=network)] for network in OF_NETWORK}
    said = ", ".join(f"{network} {min(v):.2g} to {max(v):.2g}" for network, v in largest.items() if v)
    return Verdict(any(statistics.mean(v) > 1 for v in largest.values() if v), f"largest sigma of a run: {said}")


def _around_skips(arm: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        mine = those(rows, network="resnet", arm=arm)
        if not mine:
            return None
        ratios = []
        for row in mine:
            logs: dict[bool, list[float]] = {True: [], False: []}
            for around, sigma in zip(row["around"], row["curve"][-1]["sigma"], strict=True):
                logs[around].append(math.log(sigma))
            ratios.append(statistics.mean(logs[False]) - statistics.mean(logs[True]))
        mean, half = interval(ratios)
        low, middle, high = (math.exp(one) for one in (mean - half, mean, mean + half))
        return Verdict(low > 1, f"{middle:.2f} times the sigma of the others ({low:.2f} to {high:.2f})")

    return judge


def _when(rows: list[Measurement]) -> Verdict | None:
    """Compare when log sigma has done half of its rise with when the gap has."""
    apart = []
    for (seed,) in groups(those(rows, arm="noise alone"), "seed"):
        lags = [_lag(row["curve"]) for row in those(rows, arm="noise alone", seed=seed)]
        if known := [lag for lag in lags if lag is not None]:
            apart.append(statistics.mean(known))
    if not apart:
        return None
    mean, half = interval(apart)
    said = f"sigma is half up {with_interval(100 * mean, 100 * half, 0)} % of the training after the gap is"
    return Verdict(abs(mean) + half <= _LATE, said)


def _lag(curve: list[dict[str, Any]]) -> float | None:
    """Return by what share of the training sigma is later than the gap; None where one of them never rises."""
    steps = [look["step"] / curve[-1]["step"] for look in curve]
    opened = _half_way(steps, [gap(look) for look in curve])
    sigma = _half_way(steps, [math.log(statistics.geometric_mean(look["sigma"])) for look in curve])
    return None if opened is None or sigma is None else sigma - opened


def _half_way(steps: list[float], values: list[float]) -> float | None:
    """Return when values have first done half of their rise from the lowest on; None where the lowest is the last."""
    lowest = values.index(min(values))
    later = values[lowest:]
    if len(later) < 2:
        return None
    half = (later[0] + max(later)) / 2
    return next(step for step, value in zip(steps[lowest:], later, strict=True) if value >= half)


def _same_end(rows: list[Measurement]) -> Verdict | None:
    arms = ("from 0.01", "learned", "from 1")
    ends = {}
    for arm in arms:
        mine = those(rows, network="vgg", arm=arm)
        if not mine:
            return None
        ends[arm] = statistics.geometric_mean([statistics.geometric_mean(row["curve"][-1]["sigma"]) for row in mine])
    ratio = max(ends.values()) / min(ends.values())
    said = ", ".join(f"{arm.replace('learned', 'from 0.1')} to {value:.2g}" for arm, value in ends.items())
    return Verdict(ratio < 2, f"{said} (geometric mean over layers)")


def _again(arm: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        apart = differences(those(rows, network="vgg"), {"arm": arm}, {"arm": "learned"}, "nll")
        if not apart:
            return None
        mean, half = interval(apart)
        return Verdict(abs(mean) <= half < float("inf"), f"NLL {with_interval(mean, half)} against the run")

    return judge


CLAIMS = (
    Claim(
        "depth",
        "in VGG noise rises with depth, learned without a temperature",
        _with_depth("noise alone"),
        "0.01 to 12, rising with depth",
    ),
    Claim("depth with temperature", "the same with a temperature beside it (our default)", _with_depth("learned")),
    Claim("large", "sigmas above one are learned, and survived", _large, "up to 13; in ResNet 10.4"),
    Claim(
        "skips",
        "in a ResNet noise sits where skip connections cannot go round, without a temperature",
        _around_skips("noise alone"),
        "in early and last layers",
    ),
    Claim("skips with temperature", "the same with a temperature beside it", _around_skips("learned")),
    Claim("when", "noise rises when the generalization gap opens", _when, "at epochs 5 and 40"),
    Claim("starts", "other initial sigmas come to the same end, within a factor of two", _same_end),
    Claim("schedule", "the schedule replayed cannot be told from the run", _again(REPLAYED)),
    Claim("frozen", "the last sigmas, fixed from the start, cannot be told from the run", _again(FROZEN)),
)
