"""Weight decay and noise learned together, with each estimator, against a grid search over the same two.

    grid      every strength of L2 with every noise scale, each a whole training; the one of the lowest reg NLL counts
    learned   a single training, which starts both of them at their defaults

NLL is the mean negative log-likelihood. All trainings have the same data, steps and optimizer. All predictions are
temperature-scaled on the reg split, so that what is compared is the weights. Compute is counted in FLOPs, those of the
updates of rho included.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.study import Measurement, Study
from crossreg.studies.summing import groups, mean_and_deviation, median_and_range, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GRID", "LEARNED", "NEITHER", "WeightDecay", "arm_of_grid", "cell_of_grid", "is_of_grid"]

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
"""Strengths of L2 of the grid."""
SIGMAS = (0.03, 0.1, 0.3, 1.0)
"""Noise scales of the grid."""
GRID = "best of the grid"
NEITHER = "neither"


def _learning(*names: str, **rho: Any) -> dict[str, Any]:
    """Return the settings that learn noise, the output temperature and more, with options of `RhoConfig`."""
    return {"regularizers": {name: {"learn": True} for name in ("noise", "temperature", *names)}, "rho": rho}


LEARNED: dict[str, dict[str, Any]] = {
    "noise, direct": _learning(estimator="direct"),
    "both, T1-T2": _learning("l2", estimator="t1-t2"),
    "both, unrolled 1": _learning("l2", estimator="unrolled"),
    "both, unrolled 5": _learning("l2", estimator="unrolled", unroll_steps=5),
    "both, implicit 10": _learning("l2", estimator="implicit"),
    "both and label smoothing, unrolled 1": _learning("l2", "label_smoothing", estimator="unrolled"),
}
"""The settings of each arm that learns, by its name."""


def arm_of_grid(strength: float, sigma: float) -> str:
    """Return the name of the arm that trains one cell of the grid."""
    return f"grid {strength:g} {sigma:g}"


def is_of_grid(arm: str) -> bool:
    """Say whether an arm trains a cell of the grid."""
    return arm.startswith("grid ")


def cell_of_grid(arm: str) -> tuple[float, float]:
    """Return the strength of L2 and the noise scale of an arm of the grid, by its name."""
    strength, sigma = arm.split()[1:]
    return float(strength), float(sigma)


class WeightDecay(Study):
    """Which estimator reaches the best of the grid, and at what cost."""

    name = "weight-decay"
    summary = "weight decay and noise learned together, with each estimator, against a grid of both"
    default_data = "digits"
    columns: ClassVar = {
        "model": "model",
        "arm": "arm",
        "strength": "L2",
        "sigma": "sigma",
        "reg_nll": "reg NLL",
        "nll": "test NLL",
        "accuracy": "test acc. %",
        "compute": "compute, one plain run = 1",
    }
    labels = 2
    epochs: ClassVar = {"mlp": 60, "cnn": 15}

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every training of every model with every seed."""
        arms = [
            NEITHER,
            *LEARNED,
            *(arm_of_grid(strength, sigma) for strength in STRENGTHS for sigma in SIGMAS),
        ]
        return [
            {"model": model, "arm": arm, "seed": seed} for model in self.epochs for seed in range(seeds) for arm in arms
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return the one measurement of a training."""
        import torch

        from crossreg import calibration, get_hyperparameters, metrics, sigmas
        from crossreg.services.data import load_data
        from crossreg.services.training.assemble import build_trainer
        from crossreg.services.training.config import TrainConfig
        from crossreg.services.training.resolve import resolve

        arm = case["arm"]
        config = TrainConfig.model_validate(self._settings(**case))
        began = time.perf_counter()
        data = load_data(config.data)
        # the grid chooses by the reg split, so that evaluations on it count as compute
        selection = ["reg"] if is_of_grid(arm) else []
        trainer = build_trainer(resolve(config, data), data, torch.device("cpu"), selection=selection)
        values = trainer.fit()
        test, reg = (trainer.evaluated[split] for split in ("test", "reg"))
        fitted, _ = calibration.temperature_scaled(reg.mean, reg.targets, reg.mean, reg.targets)
        scaled, _ = calibration.temperature_scaled(test.mean, test.targets, reg.mean, reg.targets)
        noise = [float(sigma.mean()) for sigma in sigmas(trainer.model).values()]
        ended = get_hyperparameters(trainer.model)
        return [
            {
                **case,
                "strength": ended.get("l2"),
                "smoothing": ended.get("label_smoothing"),
                "sigma": statistics.geometric_mean(noise) if noise else None,
                "reg_nll": fitted.nll,
                "nll": scaled.nll,
                "accuracy": 100 * scaled.accuracy,
                "flops": values[metrics.compute("flops")],
                "seconds": time.perf_counter() - began,
            }
        ]

    def _settings(self, model: str, arm: str, seed: int) -> dict[str, Any]:
        """Return the settings of a training, see `crossreg.services.training.config.TrainConfig`."""
        assert self.data is not None
        settings: dict[str, Any] = {
            "model": model,
            "data": {**self.data.model_dump(), "seed": self.data.seed + seed},
            "epochs": self.epochs[model],
            "optimizer": {"schedule": "cosine"},
            "evaluations": 1,
            "final_samples": 8,
            "seed": seed,
        }
        if arm == NEITHER:
            return {**settings, "regularizers": {}}
        if not is_of_grid(arm):
            return {**settings, **LEARNED[arm]}
        strength, sigma = cell_of_grid(arm)
        fixed = {"l2": strength, "noise": sigma}
        regularizers = {name: {"learn": False, "value": value} for name, value in fixed.items()}
        return {**settings, "regularizers": regularizers}

    def summed(self, rows: list[Measurement]) -> list[Measurement]:
        """Return the rows with the runs of a grid replaced by the best of them, at the cost of them all.

        Each gets its "compute" besides, in units of the training that has neither weight decay nor noise.
        """
        found = []
        for model, seed in groups(rows, "model", "seed"):
            mine = those(rows, model=model, seed=seed)
            (plain,) = those(mine, arm=NEITHER)
            runs = [row for row in mine if is_of_grid(row["arm"])]
            best = min(runs, key=lambda row: row["reg_nll"])
            cost = sum(row["flops"] for row in runs)
            for row in [{**best, "arm": GRID, "flops": cost}, *(row for row in mine if row not in runs)]:
                found.append({**row, "compute": row["flops"] / plain["flops"]})
        return found

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return means and standard deviations over seeds; of what was learned medians and ranges."""
        found, summed = [], self.summed(rows)
        for model, arm in groups(summed, "model", "arm"):
            mine = those(summed, model=model, arm=arm)
            found.append(
                {
                    "model": model,
                    "arm": arm,
                    **{
                        key: "–" if mine[0][key] is None else median_and_range([row[key] for row in mine], 2, 1)
                        for key in ("strength", "sigma")
                    },
                    **{key: mean_and_deviation([row[key] for row in mine], 4) for key in ("reg_nll", "nll")},
                    "accuracy": mean_and_deviation([row["accuracy"] for row in mine], 2),
                    "compute": f"{statistics.mean(row['compute'] for row in mine):.2f}",
                }
            )
        return found

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Say which arm reaches the best of the grid, by differences within a seed."""
        said, summed = [], self.summed(rows)
        for model, arm in groups(summed, "model", "arm"):
            if arm == GRID:
                continue
            grid = {row["seed"]: row for row in those(summed, model=model, arm=GRID)}
            mine = those(summed, model=model, arm=arm)
            apart = {key: [row[key] - grid[row["seed"]][key] for row in mine] for key in ("reg_nll", "nll", "accuracy")}
            reg, test = (mean_and_deviation(apart[key], 4, "+") for key in ("reg_nll", "nll"))
            points = mean_and_deviation(apart["accuracy"], 2, "+")
            share = statistics.mean(row["flops"] / grid[row["seed"]]["flops"] for row in mine)
            reached = sum(value <= 0 for value in apart["reg_nll"])
            said.append(
                f"{model}, {arm}: {100 * share:.0f} % of the grid's compute; reg NLL {reg} against the grid's best (as "
                f"good or better on {reached} of {len(mine)} seeds), test NLL {test}, accuracy {points} points."
            )
        return said

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return the mean scores of every arm, and its share of the grid's compute."""
        found, summed = {}, self.summed(rows)
        for model, arm in groups(summed, "model", "arm"):
            mine, grid = those(summed, model=model, arm=arm), those(summed, model=model, arm=GRID)
            key = f"{model}/{arm}"
            for name in ("reg_nll", "nll", "accuracy"):
                found[f"{key}/{name}"] = statistics.mean(row[name] for row in mine)
            found[f"{key}/share_of_grid_compute"] = statistics.mean(
                row["flops"] / other["flops"] for row, other in zip(mine, grid, strict=True)
            )
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw the reg NLL over the grid, and where each estimator ends."""
        from crossreg.studies.weight_decay.figure import draw

        return draw(rows, self.summed(rows))
