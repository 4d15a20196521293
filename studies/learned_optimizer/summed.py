"""The trainings of the study, summed up over seeds: rules against each other, other optimizers at their best rates."""

from __future__ import annotations

import math
import statistics
from collections.abc import Callable

from crossreg.studies.learned_optimizer.scenes import SEEN
from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = [
    "OTHER_DATA",
    "OTHER_NETWORK",
    "at",
    "by_seed",
    "chosen",
    "chosen_rate",
    "differences",
    "diverged",
    "losses_of",
    "matched",
    "rules_of",
]

OTHER_NETWORK, OTHER_DATA = "other networks", "other data"
_NORMS = 10.0
_WITHIN = 1.1

Pick = Callable[[Measurement], bool]


def at(factor: int, where: str = SEEN.name) -> Pick:
    """Return which trainings are of a length and on a setting, or on all of a kind of settings."""

    def pick(row: Measurement) -> bool:
        data, _, network = row["setting"].partition(", ")
        kinds = {
            OTHER_NETWORK: data == SEEN.data and network != SEEN.network,
            OTHER_DATA: data != SEEN.data,
        }
        return bool(row["factor"] == factor and kinds.get(where, row["setting"] == where))

    return pick


def rules_of(rows: list[Measurement]) -> list[str]:
    """Return the forms of update rules."""
    return list(dict.fromkeys(row["rule"] for row in those(rows, what="learned")))


def losses_of(rows: list[Measurement], rule: str) -> list[str]:
    """Return the meta-losses of a form of rule."""
    return list(dict.fromkeys(row["loss"] for row in those(rows, what="learned", rule=rule)))


def by_seed(rows: list[Measurement], rule: str, loss: str, pick: Pick, key: str) -> dict[int, float]:
    """Return the mean over settings and inner seeds, by seed of meta-training; without trainings that have none."""
    found: dict[int, list[float]] = {}
    for row in those(rows, what="learned", rule=rule, loss=loss):
        if pick(row) and math.isfinite(row[key]):
            found.setdefault(row["seed"], []).append(row[key])
    return {seed: statistics.mean(values) for seed, values in sorted(found.items())}


def differences(rows: list[Measurement], rule: str, loss: str, base: str, pick: Pick, key: str) -> list[float]:
    """Return what a meta-loss gives more of than another, seed by seed of meta-training."""
    mine, before = (by_seed(rows, rule, one, pick, key) for one in (loss, base))
    return [value - before[seed] for seed, value in mine.items() if seed in before]


def chosen_rate(rows: list[Measurement], optimizer: str, pick: Pick) -> float:
    """Return the learning rate with the lowest loss on the examples that are kept to choose by."""
    found: dict[float, list[float]] = {}
    for row in those(rows, what="other", rule=optimizer):
        if pick(row):
            found.setdefault(row["lr"], []).append(row["val_loss"] if math.isfinite(row["val_loss"]) else math.inf)
    return min(found, key=lambda rate: statistics.mean(found[rate]))


def chosen(rows: list[Measurement], optimizer: str, pick: Pick, lr: float | None = None) -> list[Measurement]:
    """Return the trainings of another optimizer at a learning rate; None takes the chosen one."""
    rate = chosen_rate(rows, optimizer, pick) if lr is None else lr
    return [row for row in those(rows, what="other", rule=optimizer, lr=rate) if pick(row)]


def diverged(rows: list[Measurement], all_rows: list[Measurement]) -> int:
    """Return how many trainings ended as NaN, above the loss they began with, or with ten times the norm of Adam's."""
    count = 0
    for row in rows:
        adam = chosen(all_rows, "adam", at(row["factor"], row["setting"]))
        norm = statistics.mean(one["norm"] for one in adam)
        sound = row["train_loss"] <= row["start_loss"] and row["norm"] <= _NORMS * norm  # false for NaN
        count += not sound or row["fallen_back"] is not None
    return count


def matched(rows: list[Measurement], rule: str, loss: str, base: str, key: str) -> list[float]:
    """Return logarithms of ratios of a measure, at equal training loss, seed by seed of meta-training.

    Each pair of trainings is compared where both have been: at a training loss a tenth above the higher of the two
    that they end with, between the looks on their way along a straight line in logarithms.
    """
    found: dict[int, list[float]] = {}
    pick = at(1)
    mine, others = (
        [row for row in those(rows, what="learned", rule=rule, loss=one) if pick(row)] for one in (loss, base)
    )
    for row in mine:
        for other in those(others, seed=row["seed"], inner=row["inner"]):
            level = _WITHIN * max(_lowest(one) for one in (row, other))
            pair = [_measured(one, key, level) for one in (row, other)]
            if all(value is not None and value > 0 for value in pair):
                found.setdefault(row["seed"], []).append(math.log(pair[0] / pair[1]))  # type: ignore[operator]
    return [statistics.mean(values) for _, values in sorted(found.items())]


def _lowest(row: Measurement) -> float:
    return min(one["train_loss"] for one in row["curve"])


def _measured(row: Measurement, key: str, level: float) -> float | None:
    """Return a measure where the training loss first falls to a level; None where it never does."""
    before: Measurement | None = None
    for one in row["curve"]:
        if key not in one or not math.isfinite(one["train_loss"]):
            continue
        if one["train_loss"] <= level:
            if before is None or before["train_loss"] <= level:
                return float(one[key])
            share = math.log(before["train_loss"] / level) / math.log(before["train_loss"] / one["train_loss"])
            return float(before[key] ** (1 - share) * one[key] ** share) if min(before[key], one[key]) > 0 else None
        before = one
    return None
