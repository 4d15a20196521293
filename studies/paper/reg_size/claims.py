"""What is claimed of the size of the regularization split, and when it counts as shown."""

from __future__ import annotations

import math

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.paired import differences
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, those

__all__ = ["CLAIMS", "KINDS", "LARGE", "NEVER", "SHARES", "SMALL", "exponents", "overfitted"]

SHARES = (0.001, 0.003, 0.01, 0.03, 0.1, 0.2)
"""Sizes of the split, as shares of the training examples; the largest is always held out."""
SMALL, LARGE = 0.01, max(SHARES)
KINDS = ("layer", "unit")
"""What has a sigma of its own."""
NEVER = "never saw it"
"""The run without noise, which does not depend on the split."""
MARGIN = 0.02
"""Of NLL: so near counts as as good."""


def overfitted(rows: list[Measurement]) -> list[Measurement]:
    """Return the runs that learned from a split, with by how much they overfit it; see the study."""
    never = {(row["seed"], row["share"]): row["nll"] - row["reg_nll"] for row in rows if row["granularity"] == NEVER}
    return [
        row | {"overfitting": row["nll"] - row["reg_nll"] - never[row["seed"], row["share"]]}
        for row in rows
        if row["granularity"] != NEVER and (row["seed"], row["share"]) in never
    ]


def exponents(rows: list[Measurement]) -> list[float]:
    """Return for every seed the slope of log overfitting over log(k / m), where a seed overfits at three or more."""
    from scipy.stats import linregress

    found = []
    for (seed,) in groups(rows, "seed"):
        points = [(math.log(r["k"] / r["size"]), math.log(r["overfitting"])) for r in those(rows, seed=seed)
                  if r["overfitting"] > 0]  # fmt: skip
        if len({x for x, _ in points}) > 2:
            found.append(float(linregress(*zip(*points, strict=True)).slope))
    return found


def _square_root(rows: list[Measurement]) -> Verdict | None:
    rows = overfitted(rows)
    slopes = exponents(rows)
    if not slopes:
        return None
    mean, half = interval(slopes)
    positive = sum(row["overfitting"] > 0 for row in rows)
    said = [f"exponent of k/m {with_interval(mean, half, 2)}, of {positive} positive of {len(rows)}"]
    for granularity in KINDS:
        if own := exponents(those(rows, granularity=granularity)):
            said.append(f"a sigma a {granularity} alone {with_interval(*interval(own), 2)}")
    return Verdict(mean - half > 0 and 0.5 <= mean + half < math.inf, ", ".join(said))


def _one_percent(rows: list[Measurement]) -> Verdict | None:
    kind = {"granularity": "layer"}
    apart = differences(rows, kind | {"share": SMALL}, kind | {"share": LARGE}, "nll")
    if not apart:
        return None
    mean, half = interval(apart)
    return Verdict(mean + half <= MARGIN, f"test NLL {with_interval(mean, half)} against a split of 20 %")


def _units_overfit(rows: list[Measurement]) -> Verdict | None:
    rows, said, shown = overfitted(rows), [], []
    for share in (share for share in SHARES if share <= SMALL):
        mine = those(rows, share=share)
        if apart := differences(mine, {"granularity": "unit"}, {"granularity": "layer"}, "overfitting"):
            mean, half = interval(apart)
            shown.append(mean - half > 0)
            said.append(f"{100 * share:g} %: {with_interval(mean, half)}")
    return Verdict(all(shown), f"nats more than a sigma a layer, by size {', '.join(said)}") if said else None


def _units_lose(rows: list[Measurement]) -> Verdict | None:
    found = {}
    for name in KINDS:
        kind = {"granularity": name}
        apart = differences(rows, kind | {"share": SMALL}, kind | {"share": LARGE}, "nll")
        if not apart:
            return None
        found[name] = interval(apart)
    (unit, half), (layer, other) = found["unit"], found["layer"]
    said = ", ".join(f"a sigma a {name} {with_interval(*one)}" for name, one in found.items())
    return Verdict(unit - half > MARGIN and layer + other <= MARGIN, f"test NLL of 1 % against 20 %: {said}")


CLAIMS = (
    Claim(
        "square root",
        "overfitting of the split falls with k/m, and no slower than its square root (judged: the interval over seeds "
        "of the exponent, fitted to the positive gaps, excludes 0 and reaches .5 or lies above it)",
        _square_root,
        "O(sqrt(k/m))",
    ),
    Claim(
        "one percent",
        f"a split of 1 % is as good on test as one of 20 % with a sigma a layer (NLL at most {MARGIN} above it)",
        _one_percent,
        "as small as 1 % of the training set",
    ),
    Claim("units overfit", "of splits up to 1 % a sigma a unit overfits more than a sigma a layer", _units_overfit),
    Claim(
        "units lose",
        f"with 1 % a sigma a unit loses more than {MARGIN} nats on test against 20 %, and a sigma a layer does not",
        _units_lose,
    ),
)
