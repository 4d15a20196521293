"""Training data that grow within one run: sigma follows, and is as good as one chosen anew at every size.

    growing   10, 25, 50 and 100 % of the images, one after another, the same number of steps each
    frozen    the same run, whose sigmas stay what they were at the end of the first stage; its temperature does not
    stays     the same run, which goes on with the first images
    fresh     a run on so many images from the start, as many steps as the growing one had by then
    grid      the same with one sigma for all layers, of six that which is best on held-out data; temperature learned

The held-out data are the same all along: it is training examples that are added. The rate is constant, since a run
whose data grow has no known end.
"""

from __future__ import annotations

import math
import statistics
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.claims import Claim, Verdict, interval, with_interval
from crossreg.studies.paired import differences
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crossreg.services.data import Dataset
    from crossreg.training.trainer import Trainer

__all__ = ["GrowingData", "chosen"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "pictures": "paper-fashion",
        "steps": 400,
        "training": {"model": "mlp", "model_options": {"hidden": 256}, "batch_size": 128, "rho": {"interval": 10}},
    },
    "paper": {
        "pictures": "paper-cifar-32",
        "steps": 4_000,
        "training": {"model": "vgg16", "batch_size": 128, "rho": {"interval": 30}},
    },
}
SHARES = (0.1, 0.25, 0.5, 1.0)
SIGMAS = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MARGIN = 0.02
"""Of NLL: so little worse counts as as good."""
LEARNED: dict[str, Any] = {"noise": {}, "temperature": {}}
PAPER = "sigma adapts as examples are added, without retuning"


class GrowingData(Experiment):
    """Sigma while examples are added."""

    name = "growing-data"
    summary = "training data that grow within one run: whether sigma follows, against choosing it anew at every size"
    pictures: ClassVar = {scale: (one["pictures"],) for scale, one in SCALES.items()}
    columns: ClassVar = {
        "arm": "run",
        "stage": "stage",
        "images": "images",
        "accuracy": "accuracy %",
        "nll": "NLL",
        "ece": "ECE",
        "sigma": "sigma by layer",
        "temperature": "T",
    }
    labels = 2
    deviations: ClassVar = (
        "Fashion-MNIST, 900 to 9,000 training images, 1,600 steps in all; the paper's sizes and network are not known",
        "an mlp half as wide as the default (256), since a seed takes 79 times as many steps as a stage has",
        "sigma every 10 steps, not every 30, since a stage has 400",
        "weights at a constant rate jump about: scores are means of four looks in the last 15 % of a stage",
        "1,000 images for sigma from the start, as many as belong to all training images by default; all runs "
        "standardize by the mean and the deviation of all of these",
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the growing run with those that go on from its first stage, fresh runs, and a grid at each size."""
        about = {"scale": self.scale, "root": str(self.root)}
        stages = range(len(SHARES))
        return [
            {**about, "arm": arm, "stage": stage, "seed": seed}
            for seed in range(seeds)
            # the first stage of the growing run is a fresh run; the longest come first
            for arm, some in (("growing", [0]), ("grid", stages[::-1]), ("fresh", stages[:0:-1]))
            for stage in some
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what a run, or those that share its first stage, or a grid, reach at the end of each stage."""
        from crossreg.studies.paper.stages import run_stages

        settings, seed, stage = SCALES[case["scale"]], case["seed"], case["stage"]
        parts = shares(self.load(settings["pictures"], case["root"], seed), seed)
        config, steps = settings["training"], settings["steps"]
        if case["arm"] == "growing":
            learned = config | {"regularizers": LEARNED}
            growing = run_stages(learned, parts, steps, seed, _look)
            again = {"steps": steps, "seed": seed, "look": _look, "state": growing.first}
            frozen = run_stages(learned, parts, **again, hold=("noise",))
            stays = run_stages(learned, [parts[0]] * len(parts), **again)
            arms = {"growing": growing.rows, "frozen": frozen.rows, "stays": stays.rows, "fresh": growing.rows[:1]}
            return [{"arm": arm, "seed": seed, "fixed": None, **row} for arm, rows in arms.items() for row in rows]
        found = []
        for sigma in SIGMAS if case["arm"] == "grid" else (None,):
            noise = {} if sigma is None else {"noise": {"learn": False, "value": sigma}}
            fresh = {**config, "regularizers": LEARNED | noise}
            (row,) = run_stages(fresh, [parts[stage]], (stage + 1) * steps, seed, _look).rows
            found.append({"arm": case["arm"], "seed": seed, "fixed": sigma, **row, "stage": stage})
        return found

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a run and size, means and standard deviations over seeds."""
        found = []
        judged = chosen(rows)
        arms = [arm for (arm,) in groups(judged, "arm")]
        for arm, stage in sorted(groups(judged, "arm", "stage"), key=lambda pair: (arms.index(pair[0]), pair[1])):
            mine = those(judged, arm=arm, stage=stage)
            layers = zip(*(row["sigma"] for row in mine), strict=True)
            found.append(
                {
                    "arm": arm,
                    "stage": str(stage + 1),
                    "images": str(mine[0]["images"]),
                    "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                    "nll": mean_and_deviation([row["nll"] for row in mine], 3),
                    "ece": mean_and_deviation([row["ece"] for row in mine], 3),
                    "sigma": ", ".join(f"{statistics.geometric_mean(layer):.2g}" for layer in layers),
                    "temperature": f"{statistics.mean(row['temperature'] for row in mine):.2f}",
                }
            )
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, NLL, ECE and sigma of every run at every size."""
        found = self.shown(rows)
        for arm, stage in groups(judged := chosen(rows), "arm", "stage"):
            mine, name = those(judged, arm=arm, stage=stage), f"{arm}/{100 * SHARES[stage]:g}"
            found |= {f"{key}/{name}": statistics.mean(row[key] for row in mine) for key in ("nll", "ece")}
            found[f"sigma/{name}"] = statistics.geometric_mean([_size(row) for row in mine])
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw sigma by layer while the data grow, and what every run reaches at every size."""
        from crossreg.studies.paper.growing_data.figure import draw

        return draw(chosen(rows))


def shares(data: Dataset, seed: int) -> list[Dataset]:
    """Return the data with a share of the training split each, every one with those before it."""
    from dataclasses import replace

    import numpy as np

    from crossreg.services.data import Split

    order = np.random.default_rng(seed).permutation(len(data.train))
    x, y = data.train.x[order], data.train.y[order]
    return [replace(data, train=Split(x[:many], y[:many])) for many in (round(share * len(x)) for share in SHARES)]


def chosen(rows: list[Measurement]) -> list[Measurement]:
    """Return the rows with those of a grid that are best on held-out data, one a size and seed, in the grid's place."""
    grids = [
        those(rows, arm="grid", stage=k, seed=seed) for k, seed in groups(those(rows, arm="grid"), "stage", "seed")
    ]
    best = [min(grid, key=lambda row: row["reg_nll"]) for grid in grids]
    return [row for row in rows if row["arm"] != "grid"] + sorted(best, key=lambda row: row["stage"])


def _look(trainer: Trainer, stage: int) -> list[dict[str, Any]]:
    """Return scores on test data, and the NLL on held-out data by which a grid is judged."""
    from crossreg.regularizers.temperature import temperature
    from crossreg.studies.paper.stages import seen
    from crossreg.studies.paper.training import sigma_of

    measured = {
        "stage": stage,
        "images": trainer.batches.num_examples,
        **seen(trainer, trainer.evaluation.splits["test"]),
        "reg_nll": seen(trainer, trainer.evaluation.splits["reg"])["nll"],
        "sigma": sigma_of(trainer.model),
        "temperature": float(temperature(trainer.model)),
    }
    return [measured]


def _size(row: Measurement) -> float:
    return statistics.geometric_mean(row["sigma"])


def _apart(rows: list[Measurement], other: str, stage: int, key: str = "nll") -> list[float]:
    """Return by how much the growing run is above another at the end of a stage, one value a seed; of sigma its log."""
    value = (lambda row: math.log(_size(row))) if key == "sigma" else key
    return differences(those(chosen(rows), stage=stage), {"arm": "growing"}, {"arm": other}, value)


def _falls(rows: list[Measurement]) -> Verdict | None:
    from scipy.stats import spearmanr

    ranks, sizes = [], []
    for (seed,) in groups(mine := those(rows, arm="growing"), "seed"):
        sigma = [_size(row) for row in sorted(those(mine, seed=seed), key=lambda row: row["stage"])]
        ranks.append(float(spearmanr(range(len(sigma)), sigma).statistic))
        sizes.append(sigma)
    if not ranks:
        return None
    mean, half = interval(ranks)
    said = " to ".join(f"{statistics.geometric_mean(stage):.2g}" for stage in zip(*sizes, strict=True))
    return Verdict(mean + half < 0, f"rank correlation with the stage {with_interval(mean, half, 2)}, sigma {said}")


def _as_good(other: str, stages: tuple[int, ...]) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        found = [interval(apart) for stage in stages if (apart := _apart(rows, other, stage))]
        if len(found) < len(stages):
            return None
        said = ", ".join(with_interval(*one) for one in found)
        return Verdict(all(mean + half <= MARGIN for mean, half in found), f"NLL {said}")

    return judge


def _below(other: str, key: str) -> Any:
    def judge(rows: list[Measurement]) -> Verdict | None:
        if not (apart := _apart(rows, other, len(SHARES) - 1, key)):
            return None
        mean, half = interval(apart)
        return Verdict(mean + half < 0, f"{'log sigma' if key == 'sigma' else 'NLL'} {with_interval(mean, half)}")

    return judge


_LAST = len(SHARES) - 1
GrowingData.claims = (
    Claim("falls", "sigma falls as data grow", _falls, PAPER),
    Claim(
        "end", f"the run is at its end at most {MARGIN} NLL worse than a fresh one", _as_good("fresh", (_LAST,)), PAPER
    ),
    Claim("not time", "it is the data: sigma ends lower than in the run that stays at 10 %", _below("stays", "sigma")),
    Claim(
        "grid",
        f"at every size it is at most {MARGIN} NLL worse than the best of a grid retrained there",
        _as_good("grid", tuple(range(len(SHARES)))),
    ),
    Claim("frozen", "it ends better than with sigma frozen at 10 %", _below("frozen", "nll")),
)
