"""Optimizers that are learned: what a regularizer in the meta-loss does to them, judged claim by claim."""

from __future__ import annotations

import math
import statistics
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from crossreg.studies.learned_optimizer.claims import CLAIMS
from crossreg.studies.learned_optimizer.scenes import SCALES, SEEN
from crossreg.studies.learned_optimizer.solving import UNTUNED
from crossreg.studies.learned_optimizer.summed import (
    OTHER_DATA,
    OTHER_NETWORK,
    at,
    by_seed,
    chosen,
    diverged,
    losses_of,
    rules_of,
)
from crossreg.studies.study import Measurement, Study
from crossreg.studies.summing import groups, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure


__all__ = ["LearnedOptimizerStudy"]


class LearnedOptimizerStudy(Study):
    """Meta-trains update rules with each meta-loss and several seeds, and tries them beside tuned optimizers.

    Args:
        data: where torchvision's datasets lie; the study's own file goes beside them.
        only: none; it has no parts.
        scale: "small" takes six minutes on two cores; "full" half an hour, and the LSTM hours, or minutes on a GPU.
    """

    name = "learned-optimizer"
    summary = "optimizers meta-trained with regularizers in the meta-loss, against tuned ones"
    columns: ClassVar[dict[str, str]] = {
        "optimizer": "optimizer",
        "accuracy": "acc. %",
        "nll": "NLL test, train",
        "norm": "norm",
        "sharp": "sharp fixed, rel.",
        "longer": "NLL 2x, 10x",
        "network": "other nets %",
        "data": "other data %",
        "diverged": "lost %",
    }
    default_data = "digits"
    resumable = True
    scales: ClassVar[tuple[str, ...]] = tuple(SCALES)

    def prepare(self) -> None:
        """Write the data of all settings, unless they are there."""
        from crossreg.studies.learned_optimizer.scenes import prepare

        assert self.data is not None
        prepare(self.data)

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return each rule with each meta-loss and seed, each other optimizer at each rate, and the cost of a step."""
        from crossreg.studies.learned_optimizer.trainings import OTHERS

        assert self.data is not None
        shared = {"scale": self.scale, "root": str(self.data.root)}
        rules = [
            {"what": "learned", "rule": rule, "loss": loss, "seed": seed, **shared}
            for rule, losses in SCALES[self.scale].losses.items()
            for seed in range(seeds)
            for loss in losses
        ]
        others = [
            {"what": "other", "rule": name, "loss": lr, "seed": 0, **shared}
            for name, (_, _, rates) in OTHERS.items()
            for lr in rates
        ]
        return [{"what": "cost", "rule": "", "loss": "", "seed": 0, **shared}, *rules, *others]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return what one rule or optimizer reaches on every setting."""
        import torch

        from crossreg.studies.learned_optimizer.cost import step_cost
        from crossreg.studies.learned_optimizer.solving import solve_learned, solve_other

        torch.set_num_threads(1)
        root = Path(case["root"])
        if case["what"] == "cost":
            return [{"what": "cost", "rule": "", "loss": "", "seed": 0, **step_cost()}]
        if case["what"] == "other":
            return solve_other(case["rule"], case["loss"], case["scale"], root)
        return solve_learned(case["rule"], case["loss"], case["seed"], case["scale"], root)

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a rule and meta-loss, and one for each other optimizer at the rate chosen for each setting."""
        found = [
            self._row(f"{rule}, {loss}", those(rows, what="learned", rule=rule, loss=loss), rows)
            for rule in rules_of(rows)
            for loss in losses_of(rows, rule)
        ]
        for name in dict.fromkeys(row["rule"] for row in those(rows, what="other")):
            mine = [
                one
                for setting, factor in groups(rows_of(rows), "setting", "factor")
                for one in chosen(rows, name, at(factor, setting))
            ]
            found.append(self._row(f"{name}, tuned", mine, rows))
        if untuned := those(rows, what="other", rule="adamw", lr=UNTUNED):
            found.append(self._row(f"adamw, {UNTUNED:g}", untuned, rows))
        return found

    @staticmethod
    def _row(name: str, mine: list[Measurement], rows: list[Measurement]) -> dict[str, str]:
        def mean(key: str, factor: int, where: str = SEEN.name, digits: int = 3, scale: float = 1.0) -> str:
            values = [scale * row[key] for row in mine if at(factor, where)(row) and math.isfinite(row[key])]
            return f"{statistics.mean(values):.{digits}f}" if values else "–"

        ends = [row["curve"][-1] for row in mine if at(1)(row) and "sharpness" in row["curve"][-1]]
        sharp = (
            [statistics.mean(one[key] for one in ends) for key in ("sharpness", "relative_sharpness")] if ends else []
        )
        return {
            "optimizer": name,
            "accuracy": mean("accuracy", 1, digits=1, scale=100),
            "nll": f"{mean('test_loss', 1)}, {mean('train_loss', 1)}",
            "norm": mean("norm", 1, digits=0),
            "sharp": ", ".join(f"{one:.2f}" for one in sharp) or "–",
            "longer": f"{mean('test_loss', 2)}, {mean('test_loss', 10)}",
            "network": mean("accuracy", 1, OTHER_NETWORK, 1, 100),
            "data": mean("accuracy", 1, OTHER_DATA, 1, 100),
            "diverged": f"{100 * diverged(mine, rows) / max(len(mine), 1):.0f}",
        }

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Return a verdict a claim."""
        verdicts = [(claim, claim.judge(rows)) for claim in CLAIMS]
        return [
            f"{claim.text}: {'shown' if verdict.shown else 'not shown'} ({verdict.evidence})"
            for claim, verdict in verdicts
            if verdict is not None
        ]

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown, and mean scores."""
        found: dict[str, float] = {}
        for claim in CLAIMS:
            if (verdict := claim.judge(rows)) is not None:
                found[f"shown/{claim.name}"] = float(verdict.shown)
        for rule in rules_of(rows):
            for loss in losses_of(rows, rule):
                for key in ("accuracy", "test_loss"):
                    if own := by_seed(rows, rule, loss, at(1), key):
                        found[f"{key}/{rule}/{loss}"] = statistics.mean(own.values())
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw losses on the way, sharpness, and what each meta-loss changes."""
        from crossreg.studies.learned_optimizer.figure import draw

        return draw(rows)


def rows_of(rows: list[Measurement]) -> list[Measurement]:
    """Return the measurements of trainings."""
    return [row for row in rows if row["what"] != "cost"]
