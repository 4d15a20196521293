"""What is claimed of ensembles, and when it counts as shown."""

from __future__ import annotations

import statistics
from collections.abc import Callable

from crossreg.studies import paired
from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.ensemble.scenes import CORRELATED, GRID, LEARNED, SAME_ROWS, SPEED, TABLES, WIDE
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = ["CLAIMS", "differences"]

_CLOSE = 1e-5
_FASTER = 1.5
_SCENES = ("digits", "fashion", "watch")
_POINT = 0.01
_FALL = 0.03


def differences(rows: list[Measurement], scene: str, arm: str, base: str, key: str) -> list[float]:
    """Return what an arm has more of than another, seed by seed."""
    return paired.differences(those(rows, scene=scene), {"arm": arm}, {"arm": base}, key)


def _speed(rows: list[Measurement]) -> Verdict | None:
    found = those(rows, scene=SPEED)
    if not found:
        return None
    one = found[0]
    shown = one["difference"] <= _CLOSE and one["ratio"] >= _FASTER
    return Verdict(shown, f"they differ by {one['difference']:.1g}, and it is {one['ratio']:.2f} times as fast")


def _four(base: str) -> Callable[[list[Measurement]], Verdict | None]:
    def judge(rows: list[Measurement]) -> Verdict | None:
        said, lower = [], 0
        for scene in _SCENES:
            apart = differences(rows, scene, "four", base, "nll")
            if not apart:
                return None
            mean, half = interval(apart)
            lower += mean + half < 0
            said.append(f"{scene} {with_interval(mean, half)}")
        return Verdict(lower >= 2, f"NLL {', '.join(said)}; lower on {lower} of {len(_SCENES)}")

    return judge


def _tables(rows: list[Measurement]) -> Verdict | None:
    said, better = [], 0
    for scene in TABLES:
        mine = those(rows, scene=scene, arm="five, shared weights")
        if not mine:
            return None
        key = "nll" if "accuracy" in mine[0] else "rmse"
        against_one, _ = interval(differences(rows, scene, "five, shared weights", "one", key))
        gained = -interval(differences(rows, scene, "five", "one", key))[0]
        better += against_one < 0 and -against_one >= 0.5 * gained
        said.append(f"{scene} {against_one:+.4f} against one, {-gained:+.4f} is what five gain ({key.upper()})")
    return Verdict(better == len(TABLES), "; ".join(said))


def _correlation(rows: list[Measurement]) -> Verdict | None:
    from scipy.stats import spearmanr

    means = []
    for arm in CORRELATED:
        values = [row["error_correlation"] for row in those(rows, scene="persons", arm=arm)]
        values = [value for value in values if value is not None]
        if not values:
            return None
        means.append(statistics.mean(values))
    rank = float(spearmanr(range(len(means)), means).statistic)
    return Verdict(rank <= -0.9, f"{', '.join(f'{one:.3f}' for one in means)}; Spearman {rank:.2f}")


def _improves(rows: list[Measurement]) -> Verdict | None:
    apart = differences(rows, "persons", "diversity 0.5", SAME_ROWS, "nll")
    if not apart:
        return None
    mean, half = interval(apart)
    accuracy, wide = interval(differences(rows, "persons", "diversity 0.5", SAME_ROWS, "accuracy"))
    alike = abs(accuracy) + wide <= _POINT
    said = f"NLL {with_interval(mean, half)}, accuracy {with_interval(100 * accuracy, 100 * wide, 2)} points"
    return Verdict(mean + half < 0, said + ("; equivalent within a point" if alike else ""))


def _collude(rows: list[Measurement]) -> Verdict | None:
    joint, plain = (those(rows, scene="persons", arm=arm) for arm in ("joint 0.999", SAME_ROWS))
    if not joint or not plain:
        return None
    ratio = [statistics.mean(row["spread_train"] / max(row["spread"], 1e-9) for row in some) for some in (plain, joint)]
    weakest = [statistics.mean(min(row["alone"]) for row in some) for some in (plain, joint)]
    fall = weakest[0] - weakest[1]
    said = f"spread on train over test {ratio[0]:.2f} and {ratio[1]:.2f}, the weakest falls by {100 * fall:.1f} points"
    return Verdict(ratio[1] > ratio[0] and fall >= _FALL, said)


def _learned(rows: list[Measurement]) -> Verdict | None:
    arms = [SAME_ROWS, *GRID]
    means = {}
    for arm in (*arms, LEARNED):
        values = [row["nll"] for row in those(rows, scene="persons", arm=arm)]
        if len(values) < 3:
            return None
        means[arm] = statistics.mean(values)
    best = min(arms, key=means.__getitem__)
    apart = differences(rows, "persons", LEARNED, best, "nll")
    error = statistics.stdev(apart) / len(apart) ** 0.5
    weights = [row["weight"] for row in those(rows, scene="persons", arm=LEARNED)]
    shown = means[LEARNED] <= means[best] + error and means[LEARNED] <= means[SAME_ROWS] + error
    said = f"NLL {means[LEARNED]:.3f}, best of the grid {means[best]:.3f} ({best}), none {means[SAME_ROWS]:.3f}; "
    return Verdict(shown, said + f"standard error {error:.3f}; learned {min(weights):.2f} to {max(weights):.2f}")


CLAIMS: tuple[Claim, ...] = (
    Claim("vmap", "networks as one by vmap are the same and at least 1.5 times as fast", _speed),
    Claim("four", "four networks have a lower NLL than one at the same compute, on two of three", _four("one")),
    Claim("wide", "four networks have a lower NLL than one four times as wide at the same compute", _four(WIDE)),
    Claim("shared", "on tables networks that share weights beat one and gain half of what five gain", _tables),
    Claim("correlation", "diversity lowers the correlation of errors", _correlation),
    Claim("diversity", "diversity makes the ensemble better", _improves),
    Claim("joint", "in joint training members collude", _collude),
    Claim("learned", "a learned weight is as good as the best of a grid, and no worse than none", _learned),
)
"""In the order in which they are told."""
