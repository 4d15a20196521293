"""Accuracy: learned noise against none, against what is chosen out of a grid, and against a population.

    none            no noise
    none, all data  the same, trained on the regularization split too
    fixed noise     one sigma everywhere, chosen on that split
    dropout         likewise chosen
    cross-reg       noise and temperature learned (the default)
    noise alone     noise learned (the paper's)
    PBT             a population learns what cross-reg does: with a training's compute for each of its members, and
                    with that of one cross-reg training for all of them

First as the paper has it, without augmentation ("plain"), then as one would train to win ("strong").
"""

from __future__ import annotations

import statistics
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.paired import all_above, differences
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["AccuracyStudy"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "pictures": "paper-cifar-16",
        "data": {"limit": 1_200, "reg_share": 1 / 6},
        "training": {"model": "cnn", "model_options": {"width": 12}, "batch_size": 32, "rho": {"interval": 10}},
        "plain": {"epochs": 24},
        "strong": {"epochs": 24, "augment": "crop-flip"},
        "population": 8,
    },
    "paper": {
        "pictures": "paper-cifar-32",
        "data": {},
        "training": {"model": "vgg16", "batch_size": 128, "rho": {}},
        "plain": {"epochs": 100},
        "strong": {"epochs": 200, "augment": "crop-flip"},
        "population": 8,
    },
}
PLAIN, STRONG = "plain", "strong"
ALL_DATA = "none, all data"
PBT, PBT_MATCHED = "PBT", "PBT, same compute"
ARMS = ("none", ALL_DATA, "fixed noise", "dropout", "cross-reg", "noise alone")
MARGIN = 1.0
"""Points of accuracy: what is worse by less counts as as good."""
MUCH = 5.0
"""Times the compute that counts as an order of magnitude more: a population of eight cannot take ten."""

Judge = Callable[[list[Measurement]], Verdict | None]


class AccuracyStudy(Experiment):
    """Accuracy of learned noise and of what it is compared with."""

    name = "accuracy"
    summary = (
        "accuracy of learned noise against none, fixed noise, dropout and a population; with and without augmentation"
    )
    pictures: ClassVar = {scale: (one["pictures"],) for scale, one in SCALES.items()}
    columns: ClassVar = {
        "setting": "setting",
        "arm": "arm",
        "accuracy": "accuracy %",
        "against": "points against none",
        "nll": "NLL",
        "ece": "ECE",
        "nll_scaled": "NLL scaled",
        "chosen": "chosen",
        "flops": "FLOPs",
        "ratio": "of cross-reg",
    }
    labels = 2
    seeds = 5
    deviations: ClassVar = (
        "AdamW with the default rate and a cosine schedule in both settings and at both scales, since the paper names "
        "neither; strong adds random crops and flips",
        "small: 1,200 images of 16x16 (200 of them for sigma), so few that the network overfits as the paper's does; a "
        "CNN of six convolutions, half as wide as the default, 24 epochs in batches of 32; sigma every 10 steps, not "
        "every 30, since there are so few",
        "a population of 8, whose budget is eight times that of cross-reg, in the plain setting alone; it learns noise "
        "by layer and temperature, as cross-reg does",
        "nobody gets the regularization split back to train on; what it would be worth is told by `none, all data`",
        "paper: VGG-16 has no place for dropout, so that is measured at the small scale alone",
        "the paper's method is judged by noise alone; the default, which learns a temperature too, beside it",
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the trainings of every setting, arm and seed; a population is one case."""
        from crossreg.studies.paper.arms import has_dropout

        dropout = has_dropout(SCALES[self.scale]["training"])
        kinds = [(setting, arm) for setting in (PLAIN, STRONG) for arm in ARMS if dropout or arm != "dropout"]
        return [
            {"scale": self.scale, "setting": setting, "arm": arm, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            # the longest first
            for setting, arm in [(PLAIN, PBT), *kinds]
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what one arm reaches, or a population under both budgets."""
        from crossreg.studies.paper.arms import best_of_grid
        from crossreg.studies.paper.training import scores_of

        settings, arm, seed = SCALES[case["scale"]], case["arm"], case["seed"]
        about = {key: case[key] for key in ("setting", "arm", "seed")}
        config = settings["training"] | settings[case["setting"]]
        if arm == PBT:
            return [about | found for found in _population(config, settings, case["root"], seed)]
        whole = arm == ALL_DATA
        of_data = settings["data"] | ({"reg_share": 0.0} if whole else {})
        data = self.load(settings["pictures"], case["root"], seed, **of_data)
        done = best_of_grid("none" if whole else arm, config, data, seed)
        return [{**about, **scores_of(done.trainer), "chosen": done.chosen, "flops": done.flops}]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a setting and arm, means and standard deviations over seeds."""
        found = []
        for setting, arm in groups(rows, "setting", "arm"):
            mine, ours = those(rows, setting=setting, arm=arm), those(rows, setting=setting, arm="cross-reg")
            apart = _points(rows, setting, arm, "none") if arm != "none" else []
            chosen = sorted({row["chosen"] for row in mine if row["chosen"] is not None})
            flops = statistics.mean(row["flops"] for row in mine)
            scaled = [row["nll_scaled"] for row in mine if "nll_scaled" in row]
            found.append(
                {
                    "setting": setting,
                    "arm": arm,
                    "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                    "against": with_interval(*interval(apart), 1) if apart else "–",
                    "nll": mean_and_deviation([row["nll"] for row in mine], 3),
                    "ece": mean_and_deviation([row["ece"] for row in mine], 3),
                    "nll_scaled": mean_and_deviation(scaled, 3) if scaled else "–",
                    "chosen": ", ".join(f"{value:g}" for value in chosen) or "–",
                    "flops": f"{flops:.2g}",
                    "ratio": f"{flops / statistics.mean(row['flops'] for row in ours):.2f}" if ours else "–",
                }
            )
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, mean accuracy and compute of every arm."""
        found = self.shown(rows)
        for setting, arm in groups(rows, "setting", "arm"):
            for key in ("accuracy", "flops"):
                values = [row[key] for row in those(rows, setting=setting, arm=arm)]
                found[f"{key}/{setting}/{arm}"] = statistics.mean(values)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw accuracy of every arm in both settings, and over compute."""
        from crossreg.studies.paper.accuracy.figure import draw

        return draw(rows)


def _population(config: dict[str, Any], settings: dict[str, Any], root: str, seed: int) -> list[Measurement]:
    """Return what population-based training reaches under both budgets."""
    from pathlib import Path

    from crossreg.studies.paper.accuracy.population import conditions_of, run_population
    from crossreg.studies.paper.pictures import PICTURES

    data = PICTURES[settings["pictures"]].config(Path(root) / "paper", seed).model_copy(update=settings["data"])
    conditions = conditions_of(config, data, seed, settings["population"])
    budgets = {PBT: "full", PBT_MATCHED: "matched"}
    return [
        {
            "arm": arm,
            **outcome.test,
            **{f"{name}_scaled": value for name, value in outcome.test_scaled.items()},
            "fitted": outcome.temperature,
            "chosen": None,
            "flops": outcome.cost.flops,
        }
        for arm, outcome in zip(budgets, run_population(conditions, seed, list(budgets.values())), strict=True)
    ]


def _points(rows: list[Measurement], setting: str, arm: str, other: str) -> list[float]:
    """Return by how many points an arm is more accurate than another, by seed."""
    one, two = ({"setting": setting, "arm": name} for name in (arm, other))
    return differences(rows, one, two, lambda row: 100 * row["accuracy"])


def _beats(arm: str, other: str, setting: str = PLAIN, least: float = 0.0) -> Judge:
    return lambda rows: all_above({"points": _points(rows, setting, arm, other)}, least, digits=1)


def _like_population(arm: str) -> Judge:
    """Judge whether an arm is as accurate as a population and much cheaper."""

    def judge(rows: list[Measurement]) -> Verdict | None:
        verdict = _beats(arm, PBT, least=-MARGIN)(rows)
        mine = {row["seed"]: row["flops"] for row in those(rows, setting=PLAIN, arm=arm)}
        ratios = [row["flops"] / mine[row["seed"]] for row in those(rows, arm=PBT) if row["seed"] in mine]
        if verdict is None:
            return None
        said = f"{verdict.evidence}; PBT took {statistics.mean(ratios):.1f} times the FLOPs, as it was given"
        return Verdict(verdict.shown and min(ratios) >= MUCH, said)

    return judge


def _of_paper(name: str, text: str, judge: Callable[[str], Judge], source: str) -> tuple[Claim, Claim]:
    """Return a claim of the paper, judged by its method, and the same of the default."""
    return (
        Claim(name, f"learned noise {text}", judge("noise alone"), source),
        Claim(f"{name} with temperature", f"our default, which learns a temperature too, {text}", judge("cross-reg")),
    )


AccuracyStudy.claims = (
    *_of_paper("none", "is more accurate than none", lambda arm: _beats(arm, "none"), "83.7 % and 76.0 %"),
    *_of_paper(
        "pbt",
        f"is as accurate as PBT or more, within {MARGIN:g} point, for at most a fifth of its compute",
        _like_population,
        "83.7 % both, at an order of magnitude less compute",
    ),
    Claim("pbt, same compute", "cross-reg is more accurate than PBT of its compute", _beats("cross-reg", PBT_MATCHED)),
    *(
        Claim(
            f"{other}, {setting}",
            f"{setting}: cross-reg is more accurate than {other}",
            _beats("cross-reg", other, setting),
        )
        for setting in (PLAIN, STRONG)
        for other in ("none", ALL_DATA, "fixed noise", "dropout")
        if (setting, other) != (PLAIN, "none")
    ),
)
