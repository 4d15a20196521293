"""Are probabilities right? Noise that is learned, against temperature scaling and what else makes them so.

    none          no noise: raw
    temperature   the same, with a temperature fitted on the regularization split
    fixed noise   one sigma everywhere, chosen on that split
    MC dropout    likewise chosen
    ensemble      five trainings without noise, averaged
    cross-reg     noise and temperature learned (the default)
    noise alone   noise learned (the paper's)

Each as it is and scaled on the same split; on test images, and on those images corrupted. Then with a regularization
split that is not like the test split.
"""

from __future__ import annotations

import statistics
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.paper.calibration.claims import CLAIMS
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["CalibrationStudy"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "pictures": "paper-cifar-16",
        "data": {"limit": 1_200, "reg_share": 1 / 6},
        "training": {
            "model": "cnn",
            "model_options": {"width": 12},
            "epochs": 24,
            "batch_size": 32,
            "rho": {"interval": 10},
        },
        "points": 10,
        "followed": 600,
        "shifted": 1_000,
        "draws": 3,
    },
    "paper": {
        "pictures": "paper-cifar-32",
        "data": {},
        "training": {"model": "vgg16", "epochs": 100, "batch_size": 128, "rho": {}},
        "points": 20,
        "followed": 2_000,
        "shifted": 10_000,
        "draws": 16,
    },
}
TRAININGS = (
    ("members", "clean"),
    ("fixed noise", "clean"),
    ("MC dropout", "clean"),
    ("cross-reg", "clean"),
    ("noise alone", "clean"),
    ("cross-reg", "blurred"),
    ("cross-reg", "20 % flipped"),
    ("noise alone", "blurred"),
)
"""What is trained in one case, and on which regularization split."""


class CalibrationStudy(Experiment):
    """Calibration of learned noise and of what it is compared with."""

    name = "calibration"
    summary = "calibration by learned noise, temperature scaling, ensembles and dropout; also of corrupted images"
    pictures: ClassVar = {scale: (one["pictures"],) for scale, one in SCALES.items()}
    columns: ClassVar = {
        "arm": "arm",
        "reg": "reg split",
        "accuracy": "accuracy %",
        "nll": "NLL",
        "brier": "Brier",
        "ece": "ECE",
        "ece_adaptive": "adaptive ECE",
        "fitted": "T fitted",
        "nll_scaled": "NLL scaled",
        "brier_scaled": "Brier scaled",
        "ece_scaled": "ECE scaled",
        "ece_adaptive_scaled": "adaptive ECE scaled",
        "shift": "corrupted: accuracy %",
        "shift_nll": "NLL",
        "shift_ece": "ECE",
        "shift_nll_scaled": "NLL scaled",
        "shift_ece_scaled": "ECE scaled",
        "chosen": "chosen",
        "flops": "FLOPs",
    }
    labels = 2
    seeds = 5
    claims: ClassVar = CLAIMS
    deviations: ClassVar = (
        "AdamW with the default rate and a cosine schedule at both scales, since the paper names neither; 16 draws at "
        "the end, 3 in a step of rho",
        "small: 1,200 images of 16x16 (200 of them for sigma), so few that the network overfits as the paper's does; a "
        "CNN of six convolutions, half as wide as the default, 24 epochs in batches of 32; sigma every 10 steps, not "
        "every 30, since there are so few",
        "small: under corruption 1,000 test images and 3 draws, and a curve shows 600 test images and 3 draws",
        "paper: VGG-16 has no place for dropout, so MC dropout is measured at the small scale alone",
        "the paper's method is judged by noise alone; the default, which learns a temperature too, beside it",
        "what is chosen out of a grid, and the ensemble, cost several trainings, which are counted in FLOPs; nobody "
        "trains on the regularization split afterwards",
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return the trainings of every arm and seed; what shares a training comes with it."""
        from crossreg.studies.paper.arms import has_dropout

        dropout = has_dropout(SCALES[self.scale]["training"])
        return [
            {"scale": self.scale, "training": training, "reg": reg, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for training, reg in TRAININGS
            if dropout or training != "MC dropout"
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what the trainings of a case reach."""
        from crossreg.studies.paper.calibration.runs import measure, measure_members

        settings, seed = SCALES[case["scale"]], case["seed"]
        data = self.load(settings["pictures"], case["root"], seed, **settings["data"])
        if case["training"] == "members":
            return measure_members(settings, data, seed)
        return [measure(case["training"], case["reg"], settings, data, seed)]

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row an arm and regularization split, means and standard deviations over seeds."""
        found = []
        for arm, reg in groups(rows, "arm", "reg"):
            mine = those(rows, arm=arm, reg=reg)

            def text(key: str, some: list[Measurement] = mine) -> str:
                return mean_and_deviation([row[key] for row in some], 3)

            chosen = sorted({row["chosen"] for row in mine if row["chosen"] is not None})
            found.append(
                {
                    "arm": arm,
                    "reg": reg,
                    "accuracy": mean_and_deviation([100 * row["accuracy"] for row in mine], 1),
                    **{key: text(key) for key in _SCORES},
                    "fitted": f"{statistics.mean(row['fitted'] for row in mine):.2f}",
                    **_under_shift(mine),
                    "chosen": ", ".join(f"{value:g}" for value in chosen) or "–",
                    "flops": f"{statistics.mean(row['flops'] for row in mine):.2g}",
                }
            )
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, and mean scores of every arm."""
        found = self.shown(rows)
        for arm, reg in groups(rows, "arm", "reg"):
            mine = those(rows, arm=arm, reg=reg)
            name = f"{arm}/reg_{reg}"
            for key in ("accuracy", *_SCORES):
                found[f"{key}/{name}"] = statistics.mean(row[key] for row in mine)
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw calibration of every arm, over the training, under corruption, and with another regularization split."""
        from crossreg.studies.paper.calibration.figure import draw

        return draw(rows)


_SCORES = ("nll", "brier", "ece", "ece_adaptive", "nll_scaled", "brier_scaled", "ece_scaled", "ece_adaptive_scaled")


def _under_shift(rows: list[Measurement]) -> dict[str, str]:
    """Return the cells about corrupted images: means over corruptions, severities and seeds."""
    keys = {"shift": "accuracy", **{f"shift_{key}": key for key in ("nll", "ece", "nll_scaled", "ece_scaled")}}
    looks = [look for row in rows for look in row["shift"]]
    if not looks:
        return dict.fromkeys(keys, "–")
    means = {cell: statistics.mean(look[key] for look in looks) for cell, key in keys.items()}
    return {cell: f"{100 * mean:.1f}" if cell == "shift" else f"{mean:.3f}" for cell, mean in means.items()}
