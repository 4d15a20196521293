"""Optimizers that are learned: what a regularizer in the meta-loss does to them, judged claim by claim."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from studies.learned_optimizer.scenes import SCALES
from studies.study import Measurement, Study

if TYPE_CHECKING:
    from collections.abc import Sequence

    from matplotlib.figure import Figure

    from services.data import DataConfig

__all__ = ["LearnedOptimizerStudy"]


class LearnedOptimizerStudy(Study):
    """Meta-trains update rules with each meta-loss and several seeds, and tries them beside tuned optimizers.

    Args:
        data: where torchvision's datasets lie; the study's own file goes beside them.
        only: none; it has no parts.
        scale: "small" takes twenty minutes on two cores, "full" an hour, and a GPU for the LSTM.
    """

    name = "learned-optimizer"
    summary = "optimizers meta-trained with regularizers in the meta-loss, against tuned ones"
    columns: ClassVar[dict[str, str]] = {}
    default_data = "digits"
    resumable = True
    scales = tuple(SCALES)

    def __init__(self, data: DataConfig | None = None, only: Sequence[str] = (), scale: str = "small") -> None:
        super().__init__(data, only)
        self.scale = scale

    def prepare(self) -> None:
        """Write the data of all settings, unless they are there."""
        from studies.learned_optimizer.scenes import prepare

        assert self.data is not None
        prepare(self.data)

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return each rule with each meta-loss and seed, each other optimizer at each rate, and the cost of a step."""
        from studies.learned_optimizer.trainings import OTHERS

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

        from studies.learned_optimizer.cost import step_cost
        from studies.learned_optimizer.solving import solve_learned, solve_other

        torch.set_num_threads(1)
        root = Path(case["root"])
        if case["what"] == "cost":
            return [{"what": "cost", "rule": "", "loss": "", "seed": 0, **step_cost()}]
        if case["what"] == "other":
            return solve_other(case["rule"], case["loss"], case["scale"], root)
        return solve_learned(case["rule"], case["loss"], case["seed"], case["scale"], root)

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return nothing yet."""
        return []

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Return nothing yet."""
        return []

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return nothing yet."""
        return {}

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw nothing yet."""
        raise NotImplementedError
