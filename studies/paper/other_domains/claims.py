"""What is claimed of learned noise on data that are no images, and when it counts as shown."""

from __future__ import annotations

from typing import Any

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.paired import differences
from crossreg.studies.paper.other_domains.domains import DOMAINS
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = ["ARMS", "CLAIMS", "apart", "chosen"]

NONE, TEMPERATURE, LEARNED, DROPOUT, FIXED = "none", "temperature alone", "learned", "dropout", "fixed noise"
ARMS = (NONE, TEMPERATURE, LEARNED, DROPOUT, FIXED)
MARGIN, POINTS = 0.02, 1.0
"""Of NLL in nats and of accuracy in points: so much behind still counts as not behind."""
CLEAN, FLIPPED = "docstrings", "docstrings, flipped"
PRE, POST, CONSTANT = "pre-norm", "post-norm", "pre-norm, constant rate"


def chosen(rows: list[Measurement]) -> list[Measurement]:
    """Return a row a data set, network, seed and arm: the setting whose loss on the held-out split is the smallest."""
    found: dict[tuple[Any, ...], Measurement] = {}
    for row in rows:
        one = tuple(row[key] for key in ("data", "network", "seed", "arm"))
        if one not in found or row["reg_nll"] < found[one]["reg_nll"]:
            found[one] = row
    return [*found.values()]


def apart(rows: list[Measurement], data: str, network: str, arm: str, other: str, key: str) -> list[float]:
    """Return by seed how far a score of one arm is above that of another; of rows that `chosen` returned."""
    return differences(those(rows, data=data, network=network), {"arm": arm}, {"arm": other}, key)


def _by_data(rows: list[Measurement], arm: str, other: str, key: str) -> dict[str, tuple[float, float]]:
    """Return the paired difference with half its interval by data set, with its main network."""
    rows = chosen(rows)
    found = {}
    for name, domain in DOMAINS.items():
        if values := apart(rows, name, next(iter(domain.networks)), arm, other, key):
            found[name] = interval(values)
    return found


def _on_most(other: str, key: str, *, margin: float, scale: float = 1.0, digits: int = 3) -> Any:
    """Return what judges whether learned noise is below another arm by interval on more than half of the data sets.

    Args:
        other: arm.
        key: score; negative `scale` where more is better.
        margin: so much above still counts.
        scale: of the score.
        digits: of the evidence.
    """

    def judge(rows: list[Measurement]) -> Verdict | None:
        found = _by_data(rows, LEARNED, other, key)
        if not found:
            return None
        holds = {name: scale * mean + abs(scale) * half < margin for name, (mean, half) in found.items()}
        said = [
            f"{name} {with_interval(abs(scale) * mean, abs(scale) * half, digits)}{'' if holds[name] else ' (no)'}"
            for name, (mean, half) in found.items()
        ]
        count = sum(holds.values())
        return Verdict(2 * count > len(found), f"on {count} of {len(found)} data sets: {'; '.join(said)}")

    return judge


def _beyond_temperature(data: str, network: str | None = None) -> Any:
    network = network or next(iter(DOMAINS[data].networks))

    def judge(rows: list[Measurement]) -> Verdict | None:
        values = apart(chosen(rows), data, network, LEARNED, TEMPERATURE, "nll")
        if not values:
            return None
        mean, half = interval(values)
        return Verdict(mean + half < 0, f"NLL {with_interval(mean, half)} against a temperature alone")

    return judge


def _accuracy_rises(rows: list[Measurement]) -> Verdict | None:
    found = _by_data(rows, LEARNED, NONE, "accuracy").get(FLIPPED)
    if found is None:
        return None
    mean, half = (100 * one for one in found)
    return Verdict(mean - half > 0, f"{with_interval(mean, half, 1)} points")


def _norms(rows: list[Measurement]) -> Verdict | None:
    rows, found = chosen(rows), {}
    for network in (PRE, POST):
        for seed in {row["seed"] for row in rows}:
            if values := apart(those(rows, seed=seed), FLIPPED, network, LEARNED, TEMPERATURE, "nll"):
                found[network, seed] = values[0]
    seeds = [seed for network, seed in found if network == PRE and (POST, seed) in found]
    if not seeds:
        return None
    mean, half = interval([found[PRE, seed] - found[POST, seed] for seed in seeds])
    said = ", ".join(
        f"{network} {with_interval(*interval([found[network, s] for s in seeds]))}" for network in (PRE, POST)
    )
    return Verdict(mean + half < 0, f"NLL against a temperature alone: {said}; apart {with_interval(mean, half)}")


CLAIMS = (
    Claim(
        "calibration",
        "learned noise and temperature lower NLL on most data sets",
        _on_most(NONE, "nll", margin=0.0),
    ),
    *(
        Claim(
            f"beyond temperature, {name}", f"{name}: noise buys more NLL than a temperature", _beyond_temperature(name)
        )
        for name in DOMAINS
    ),
    Claim(
        "accuracy",
        f"accuracy is not lower than with nothing, by {POINTS:g} point at most, on most data sets",
        _on_most(NONE, "accuracy", margin=POINTS, scale=-100, digits=1),
    ),
    Claim(
        "accuracy with flips", "on text with flipped labels and a pre-norm encoder accuracy rises too", _accuracy_rises
    ),
    *(
        Claim(
            f"not behind {arm}",
            f"no more than {MARGIN} nats behind {arm} chosen on the same split, both scaled, on most data sets",
            _on_most(arm, "nll_scaled", margin=MARGIN),
        )
        for arm in (DROPOUT, FIXED)
    ),
    Claim(
        "constant rate",
        "on text with flipped labels, trained twice as long at a constant rate, noise buys more NLL than a temperature",
        _beyond_temperature(FLIPPED, CONSTANT),
    ),
    Claim("norms", "on text with flipped labels noise buys more with pre-norm than with post-norm", _norms),
)
