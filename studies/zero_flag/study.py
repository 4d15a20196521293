"""The claim of this project, measured: one run without a flag, against a search at ten times its compute.

    pair       data and a network; see `crossreg.studies.zero_flag.pairs`
    search     16 trainings of it: the default, and draws of learning rate, length, weight decay, dropout, noise and
               label smoothing over published ranges (`crossreg.services.training.tuning`), of which the best on a
               held-out part counts
    zero flag  `crossreg train --data FILE --model MODEL` and nothing else

A pair is won where the zero-flag run is at most half a point of accuracy (1 % of RMSE) behind what the search chose,
and not behind in NLL, on average over seeds. All are temperature-scaled on held-out data alone.
"""

from __future__ import annotations

import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.services.data import load_data
from crossreg.studies.study import Measurement
from crossreg.studies.summing import mean_and_deviation
from crossreg.studies.zero_flag.on_pairs import OnPairs
from crossreg.studies.zero_flag.pairs import PAIRS
from crossreg.studies.zero_flag.summed import Summed, chosen, summed

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

__all__ = ["ZeroFlag"]


class ZeroFlag(OnPairs):
    """Whether a run without flags is as good as a tuned search."""

    name = "zero-flag"
    summary = "one run without flags against a random search of 16 trainings, at a tenth of its compute"
    columns: ClassVar = {
        "pair": "pair",
        "verdict": "verdict",
        "lead": "lead, points or % of RMSE",
        "nll_lead": "lead in NLL",
        "zero_flag": "zero flag",
        "search": "search",
        "refitted": "search, refitted",
        "default": "its first trial",
        "simple": "best simple model",
        "compute": "compute / search",
    }

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the run and the search of every pair and seed; all pairs have one seed before any has two.

        They are kept apart: after a change to the run, the searches of before still stand.
        """
        return [
            {"part": part, "pair": pair, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for pair in self.only
            for part in ("run", "search")
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return the zero-flag run; or every trial of the search, its choice refitted, and simple models."""
        from crossreg.services.training.simple import simple_scores
        from crossreg.services.training.tuning import TRIALS
        from crossreg.studies.zero_flag.search import refitted, searched, zero_flag

        pair, seed = PAIRS[case["pair"]], case["seed"]
        data = pair.config(self.files(Path(case["root"])), seed)
        about = {"pair": pair.name, "seed": seed, "untouched": pair.untouched}
        if case["part"] == "run":
            return [{**about, "method": "zero flag", **zero_flag(pair, data, seed)}]
        loaded = load_data(data)
        trials = [
            {**about, "method": "trial", "trial": index, **searched(pair, data, loaded, seed, index)}
            for index in range(TRIALS)
        ]
        best = chosen(trials)
        again = refitted(pair, data, loaded, seed, best["trial"], best["temperature"])
        rows = [*trials, {**about, "method": "refitted", "trial": best["trial"], **again}]
        if loaded.train.x.dtype.kind in "fu":  # tokens are no quantities
            rows += [{**about, "method": name, **found} for name, found in simple_scores(loaded, seed).items()]
        return rows

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a pair, those that lose first."""
        return [self._row(one) for one in summed(rows)]

    def _row(self, one: Summed) -> dict[str, str]:
        def text(method: str) -> str:
            return " / ".join(
                f"{value:.{digits}f}" for value, digits in zip(one.scores[method], _DIGITS[one.regression], strict=True)
            )

        simple = [name for name in one.scores if name not in _OURS]
        best = min(simple, key=lambda name: one.scores[name][-1], default=None)
        return {
            "pair": one.pair + (" *" if one.untouched else ""),
            "verdict": "won" if one.won else "lost",
            "lead": _with_spread(one.leads, 1) + (" %" if one.regression else ""),
            "nll_lead": _with_spread(one.nll_leads, 3),
            **{key: text(key.replace("_", " ")) for key in ("zero_flag", "search", "refitted", "default")},
            "simple": "–" if best is None else f"{text(best)} ({best})",
            "compute": f"{one.compute:.3f}",
        }

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say how many pairs are won, by how much, and at what compute; the untouched ones by themselves."""
        found = summed(rows)
        said = []
        for name, some in (("all pairs", found), ("the untouched pairs (*)", [one for one in found if one.untouched])):
            if not some:
                continue
            classes = [one for one in some if not one.regression]
            numbers = [one for one in some if one.regression]
            parts = [f"{name}: won {sum(one.won for one in some)} of {len(some)}"]
            if classes:
                parts.append(f"mean lead in accuracy {_interval([one.lead for one in classes], 2)} points")
                parts.append(f"in NLL {_interval([one.nll_lead for one in classes], 4)}")
            if numbers:
                parts.append(f"in RMSE {_interval([one.lead for one in numbers], 1)} %")
            said.append("; ".join(parts))
        refitted = sum(one.won_against_refitted for one in found)
        said.append(f"against the search's choice refitted on all data: won {refitted} of {len(found)}")
        share = [one.compute for one in found]
        said.append(f"compute: {statistics.mean(share):.3f} of the search's, {max(share):.3f} at most")
        lost = [one.pair for one in found if not one.won]
        said.append(f"lost: {', '.join(lost) or 'none'}")
        return said

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return leads by pair, and how many were won."""
        found = summed(rows)
        return {
            "won": float(sum(one.won for one in found)),
            "pairs": float(len(found)),
            "compute": statistics.mean(one.compute for one in found),
            **{f"lead/{one.pair}": one.lead for one in found},
            **{f"nll_lead/{one.pair}": one.nll_lead for one in found if not one.regression},
        }

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw the leads."""
        from crossreg.studies.zero_flag.figure import draw

        return draw(summed(rows))


_DIGITS = {False: (1, 3), True: (4,)}
"""After the point, of accuracy in percent and NLL, or of RMSE."""
_OURS = ("zero flag", "search", "refitted", "default")


def _with_spread(values: Sequence[float], digits: int) -> str:
    return mean_and_deviation(values, digits, "+") if values else "–"


def _interval(values: Sequence[float], digits: int) -> str:
    """Return the mean over pairs with its 95 % interval, by Student's t."""
    mean = statistics.mean(values)
    if len(values) < 3:
        return f"{mean:+.{digits}f}"
    from scipy.stats import t

    half = float(t.ppf(0.975, len(values) - 1)) * statistics.stdev(values) / len(values) ** 0.5
    return f"{mean:+.{digits}f} (95 % interval over pairs {mean - half:+.{digits}f} to {mean + half:+.{digits}f})"
