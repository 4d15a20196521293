"""The measurements of all pairs, summed up: leads of the zero-flag run over what the search chose."""

from __future__ import annotations

import statistics
from dataclasses import dataclass

from crossreg.studies.study import Measurement
from crossreg.studies.summing import those

__all__ = ["Summed", "chosen", "summed"]

_POINT, _PERCENT = 0.5, 1.0
"""How far behind still counts as level: points of accuracy, percent of RMSE."""


@dataclass(frozen=True)
class Summed:
    """A pair over its seeds.

    Attributes:
        pair: its name.
        untouched: it chose no default.
        regression: its scores are RMSE.
        leads: of the zero-flag run over the search, one a seed: points of accuracy, or percent of RMSE.
        nll_leads: in NLL, one a seed; empty for a regression.
        compute: of the zero-flag run, as a share of the search's.
        scores: mean of accuracy in percent and NLL, or of RMSE, by method.
    """

    pair: str
    untouched: bool
    regression: bool
    leads: tuple[float, ...]
    nll_leads: tuple[float, ...]
    compute: float
    scores: dict[str, tuple[float, ...]]

    @property
    def lead(self) -> float:
        """The mean over seeds."""
        return statistics.mean(self.leads)

    @property
    def nll_lead(self) -> float:
        """The mean over seeds; 0 for a regression."""
        return statistics.mean(self.nll_leads) if self.nll_leads else 0.0

    @property
    def won(self) -> bool:
        """Whether the claim holds: level or better, and not behind in NLL."""
        return self._won(self.lead, self.nll_lead)

    @property
    def won_against_refitted(self) -> bool:
        """Whether it holds against the search's choice refitted on all data too, on the means over seeds."""
        own, other = self.scores["zero flag"], self.scores["refitted"]
        if self.regression:
            return self._won(100 * (other[0] - own[0]) / other[0], 0.0)
        return self._won(own[0] - other[0], other[1] - own[1])

    def _won(self, lead: float, nll_lead: float) -> bool:
        return lead >= (-_PERCENT if self.regression else -_POINT) and nll_lead >= 0


def chosen(trials: list[Measurement]) -> Measurement:
    """Return the trial that a search chooses of its own."""
    return min(trials, key=lambda trial: float(trial["held_out"]))


def summed(rows: list[Measurement]) -> list[Summed]:
    """Return every pair, those that lose most first."""
    found = [_pair(rows, pair) for pair in dict.fromkeys(row["pair"] for row in rows)]
    return sorted(found, key=lambda one: (one.won, one.lead))


def _pair(rows: list[Measurement], pair: str) -> Summed:
    mine = those(rows, pair=pair)
    seeds = sorted({row["seed"] for row in mine})
    trials = {seed: those(mine, seed=seed, method="trial") for seed in seeds}
    best = {seed: chosen(trials[seed]) for seed in seeds}
    own = {row["seed"]: row for row in those(mine, method="zero flag")}
    regression = "rmse" in mine[0]
    if regression:
        leads = [100 * (best[seed]["rmse"] - own[seed]["rmse"]) / best[seed]["rmse"] for seed in seeds]
    else:
        leads = [100 * (own[seed]["accuracy"] - best[seed]["accuracy"]) for seed in seeds]
    spent = [own[seed]["flops"] / sum(trial["flops"] for trial in trials[seed]) for seed in seeds]
    by_method = {
        "zero flag": list(own.values()),
        "search": list(best.values()),
        "refitted": those(mine, method="refitted"),
        "default": [row for row in those(mine, method="trial") if row["trial"] == 0],
    }
    others = {"zero flag", "trial", "refitted"}
    by_method |= {
        name: those(mine, method=name) for name in dict.fromkeys(r["method"] for r in mine) if name not in others
    }
    return Summed(
        pair=pair,
        untouched=bool(mine[0]["untouched"]),
        regression=regression,
        leads=tuple(leads),
        nll_leads=() if regression else tuple(best[seed]["nll"] - own[seed]["nll"] for seed in seeds),
        compute=statistics.mean(spent),
        scores={name: _means(those_rows, regression) for name, those_rows in by_method.items()},
    )


def _means(rows: list[Measurement], regression: bool) -> tuple[float, ...]:
    if regression:
        return (statistics.mean(row["rmse"] for row in rows),)
    return (100 * statistics.mean(row["accuracy"] for row in rows), statistics.mean(row["nll"] for row in rows))
