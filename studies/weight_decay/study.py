"""Weight decay and noise learned together, with each estimator, against a grid of the same two.

    grid      every strength of L2 with every noise scale, each a whole training; that of the lowest reg NLL is taken
    learned   one training, which starts both of them at the defaults

All train with the same data, steps and optimizer, and all predictions are temperature-scaled on the regularization
split, so that what is compared is the weights. Compute is counted in FLOPs, the updates of rho with it.
"""

from __future__ import annotations

import statistics
import time
from typing import TYPE_CHECKING, Any, ClassVar

from studies.study import Row, Study
from studies.summing import groups, mean_and_deviation, median_and_range, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

__all__ = ["GRID", "LEARNED", "WeightDecay"]

STRENGTHS = (1e-5, 1e-4, 1e-3, 1e-2)
SIGMAS = (0.03, 0.1, 0.3, 1.0)
GRID = "best of the grid"
NEITHER = "neither"
LEARNED: dict[str, dict[str, Any]] = {
    "noise, direct": {},
    "both, T1-T2": {"learn": ["l2"], "rho": {"estimator": "t1-t2"}},
    "both, unrolled 1": {"learn": ["l2"], "rho": {"estimator": "unrolled"}},
    "both, unrolled 5": {"learn": ["l2"], "rho": {"estimator": "unrolled", "unroll_steps": 5}},
    "both, implicit 10": {"learn": ["l2"], "rho": {"estimator": "implicit"}},
    "both and label smoothing, unrolled 1": {"learn": ["l2", "label_smoothing"], "rho": {"estimator": "unrolled"}},
}
"""What each learned arm changes of the training, by its name."""


class WeightDecay(Study):
    """Who reaches the grid's best, at what cost."""

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
    epochs: ClassVar = {"mlp": 60, "cnn": 15}

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return every training of every model with every seed."""
        arms = [
            NEITHER,
            *LEARNED,
            *(f"grid {strength:g} {sigma:g}" for strength in STRENGTHS for sigma in SIGMAS),
        ]
        return [
            {"model": model, "arm": arm, "seed": seed} for model in self.epochs for seed in range(seeds) for arm in arms
        ]

    def solve(self, **case: Any) -> list[Row]:
        """Return the one row of a training."""
        import torch

        from crossreg import calibration, sigmas
        from crossreg.core.metrics import COMPUTE_FLOPS
        from services.data import load_data
        from services.training.assemble import build_trainer
        from services.training.config import TrainConfig

        assert self.data is not None
        settings: dict[str, Any] = {
            "model": case["model"],
            "data": {**self.data.model_dump(), "seed": self.data.seed + case["seed"]},
            "epochs": self.epochs[case["model"]],
            "evaluations": 1,
            "final_samples": 8,
            "seed": case["seed"],
        }
        arm = case["arm"]
        grid = arm.startswith("grid ")
        if grid:
            strength, sigma = (float(word) for word in arm.split()[1:])
            settings |= {"method": "fixed", "learn": {"l2": strength}, "noise": {"initial_sigma": sigma}}
        else:
            settings |= {"method": "none"} if arm == NEITHER else LEARNED[arm]
        config = TrainConfig.model_validate(settings)
        began = time.perf_counter()
        trainer = build_trainer(config, load_data(config.data), torch.device("cpu"), selection=["reg"] if grid else [])
        values = trainer.fit()
        test, reg = (trainer.evaluated[split] for split in ("test", "reg"))
        fitted, _ = calibration.temperature_scaled(reg.mean, reg.targets, reg.mean, reg.targets)
        scaled, _ = calibration.temperature_scaled(test.mean, test.targets, reg.mean, reg.targets)
        noise = [float(sigma.mean()) for sigma in sigmas(trainer.model).values()]
        return [
            {
                **case,
                "strength": learned(trainer.model).get("l2"),
                "smoothing": learned(trainer.model).get("label_smoothing"),
                "sigma": statistics.geometric_mean(noise) if noise else None,
                "reg_nll": fitted.nll,
                "nll": scaled.nll,
                "accuracy": 100 * scaled.accuracy,
                "flops": values[COMPUTE_FLOPS],
                "seconds": time.perf_counter() - began,
            }
        ]

    def summed(self, rows: list[Row]) -> list[Row]:
        """Return a row for every model, arm and seed, the grid's runs as the one that is chosen among them."""
        found = []
        for model, seed in groups(rows, "model", "seed"):
            mine = those(rows, model=model, seed=seed)
            (plain,) = those(mine, arm=NEITHER)
            runs = [row for row in mine if row["arm"].startswith("grid ")]
            best = min(runs, key=lambda row: row["reg_nll"])
            cost = sum(row["flops"] for row in runs)
            for row in [{**best, "arm": GRID, "flops": cost}, *(row for row in mine if row not in runs)]:
                found.append({**row, "compute": row["flops"] / plain["flops"]})
        return found

    def table(self, rows: list[Row]) -> list[dict[str, str]]:
        """Return means and standard deviations over seeds, medians and ranges of what was learned."""
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

    def findings(self, rows: list[Row]) -> list[str]:
        """Say which arm reaches the grid's best, by paired differences."""
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

    def numbers(self, rows: list[Row]) -> dict[str, float]:
        """Return the mean difference of every arm from the grid's best."""
        found, summed = {}, self.summed(rows)
        for model, arm in groups(summed, "model", "arm"):
            mine, grid = those(summed, model=model, arm=arm), those(summed, model=model, arm=GRID)
            key = f"{model}/{arm.replace(', ', '_').replace(' ', '_')}"
            for name in ("reg_nll", "nll", "accuracy"):
                found[f"{key}/{name}"] = statistics.mean(row[name] for row in mine)
            found[f"{key}/share_of_grid_compute"] = statistics.mean(
                row["flops"] / other["flops"] for row, other in zip(mine, grid, strict=True)
            )
        return found

    def figure(self, rows: list[Row]) -> Figure:
        """Draw the held-out loss over the grid, and where each estimator ends."""
        from studies.weight_decay.figure import draw

        return draw(rows, self.summed(rows))
