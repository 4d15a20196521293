"""A stream of tasks through one network: whether what is learned follows, and whether that costs what was known.

    rotated     images at 0, 30, 60 and 90 degrees
    permuted    images whose pixels are permuted, in four fixed ways

One run goes through the tasks of a stream one after another; the held-out data are those of the task at hand.

    none          without noise and temperature
    temperature   the same weights, with a learned temperature, which theta does not notice
    fixed         noise of sigma 0.2 in every layer, and a learned temperature
    learned       noise and temperature, the default
    frozen        the same, neither of which moves after the first task
"""

from __future__ import annotations

import statistics
from dataclasses import replace
from typing import TYPE_CHECKING, Any, ClassVar

import numpy as np

from crossreg.services.data import Split
from crossreg.studies.paper.drift.claims import CLAIMS, TASKS, at_hand, at_the_end, forgetting
from crossreg.studies.paper.experiment import Experiment
from crossreg.studies.study import Measurement
from crossreg.studies.summing import groups, mean_and_deviation, those

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from crossreg.services.data import Dataset
    from crossreg.training.trainer import Trainer

__all__ = ["Drift", "permuted", "rotated", "stream"]

SCALES: dict[str, dict[str, Any]] = {
    "small": {
        "pictures": "paper-fashion",
        "steps": 400,
        "training": {"model": "mlp", "batch_size": 128, "rho": {"interval": 10}},
    },
    "paper": {
        "pictures": "paper-fashion-all",
        "steps": 5_000,
        "training": {"model": "mlp", "batch_size": 128, "rho": {"interval": 30}},
    },
}
STREAMS = ("rotated", "permuted")
ANGLES = (0.0, 30.0, 60.0, 90.0)
SIGMA = 0.2
TRAININGS: dict[str, dict[str, Any]] = {
    "learned": {"noise": {}, "temperature": {}},
    "fixed": {"noise": {"learn": False, "value": SIGMA}, "temperature": {}},
    "temperature": {"temperature": {}},
}
"""The other two come with these: frozen goes on after the first task of learned, none is temperature without it."""


class Drift(Experiment):
    """Sigma, calibration and forgetting along a stream of tasks."""

    name = "drift"
    summary = "a stream of rotated, and of permuted, images: whether sigma follows, and whether more is forgotten"
    pictures: ClassVar = {scale: (one["pictures"],) for scale, one in SCALES.items()}
    columns: ClassVar = {
        "stream": "stream",
        "arm": "noise",
        "accuracy": "accuracy % at hand",
        "nll": "NLL at hand",
        "ece": "ECE at hand",
        "earlier": "earlier % at the end",
        "forgetting": "forgotten",
        "sigma": "sigma at the end",
    }
    labels = 2
    claims: ClassVar = CLAIMS
    deviations: ClassVar = (
        "the paper asks the question and has no experiment; Fashion-MNIST, 9,000 training and 1,000 held-out images of "
        "each task, the default mlp",
        "400 steps a task; sigma every 10 of them, not every 30, since there are so few",
        "a constant learning rate, since a stream has no known end; weights jump about at it, so scores are means of "
        "four looks in the last 15 % of a task",
        "batch normalization takes its statistics from the task at hand, in all runs",
    )

    def cases(self, seeds: int) -> list[dict[str, Any]]:
        """Return a run through every stream with every kind of noise; those that share weights come together."""
        return [
            {"scale": self.scale, "stream": name, "arm": arm, "seed": seed, "root": str(self.root)}
            for seed in range(seeds)
            for arm in TRAININGS
            for name in STREAMS
        ]

    def solve(self, **case: Any) -> list[Measurement]:
        """Return after each task the scores on it and on all before it."""
        from crossreg.studies.paper.stages import run_stages

        settings, seed, arm = SCALES[case["scale"]], case["seed"], case["arm"]
        data = stream(self.load(settings["pictures"], case["root"], seed), case["stream"])
        config = settings["training"] | {"regularizers": TRAININGS[arm]}
        about = {"stream": case["stream"], "arm": arm, "seed": seed}
        look = _Look(data)
        run = run_stages(config, data, settings["steps"], seed, look, reg=True)
        found = [{**about, **row} for row in run.rows]
        if arm == "learned":
            held = ("noise", "temperature")
            frozen = run_stages(config, data, settings["steps"], seed, look, reg=True, state=run.first, hold=held)
            first = [row for row in run.rows if row["task"] == 0]
            found += [{**about, **row, "arm": "frozen"} for row in first + frozen.rows]
        for row in found:
            if row["tested"] != row["task"]:
                del row["curve"]  # that of the task is kept once
        return found

    def table(self, rows: list[Measurement]) -> list[dict[str, str]]:
        """Return a row a stream and kind of noise, means and standard deviations over seeds."""
        found = []
        for name, arm in groups(rows, "stream", "arm"):
            mine = those(rows, stream=name, arm=arm)
            ends = [row["sigma"] for row in those(mine, task=TASKS - 1, tested=TASKS - 1)]
            sigma = [statistics.geometric_mean(layer) for layer in zip(*ends, strict=True)]
            found.append(
                {
                    "stream": name,
                    "arm": arm,
                    "accuracy": mean_and_deviation(_percent(at_hand(mine, "accuracy")), 1),
                    "nll": mean_and_deviation([*at_hand(mine, "nll").values()], 3),
                    "ece": mean_and_deviation([*at_hand(mine, "ece").values()], 3),
                    "earlier": mean_and_deviation(_percent(at_the_end(mine, "accuracy")), 1),
                    "forgetting": mean_and_deviation(_percent(forgetting(mine)), 1),
                    "sigma": ", ".join(f"{one:.2g}" for one in sigma) or "–",
                }
            )
        return found

    def numbers(self, rows: list[Measurement]) -> dict[str, float]:
        """Return which claims were shown; NLL and ECE on the task at hand, and what was forgotten, of every run."""
        found = self.shown(rows)
        for name, arm in groups(rows, "stream", "arm"):
            mine = those(rows, stream=name, arm=arm)
            for key in ("accuracy", "nll", "ece"):
                found[f"{key}/{name}/{arm}"] = statistics.mean(at_hand(mine, key).values())
            found[f"forgetting/{name}/{arm}"] = statistics.mean(forgetting(mine).values())
        return found

    def figure(self, rows: list[Measurement]) -> Figure:
        """Draw sigma and held-out loss over time, and by task what was forgotten and calibration."""
        from crossreg.studies.paper.drift.figure import draw

        return draw(rows)


class _Look:
    """Looks at the task at hand and at all before it.

    Args:
        data: of every task.
    """

    def __init__(self, data: list[Dataset]) -> None:
        self.data = data

    def __call__(self, trainer: Trainer, task: int) -> list[dict[str, Any]]:
        """Return a row for each of them; without noise twice, with the temperature and without."""
        from crossreg.regularizers import set_hyperparameters
        from crossreg.regularizers.temperature import temperature
        from crossreg.studies.paper.stages import batches_like, seen
        from crossreg.studies.paper.training import sigma_of

        learned, sigma, found = float(temperature(trainer.model)), sigma_of(trainer.model), []
        values = {"": learned} if sigma else {"": learned, "none": 1.0}
        for arm, value in values.items():
            set_hyperparameters(trainer.model, None, {"temperature": value})
            for tested in range(task + 1):
                batches = batches_like(self.data[tested].test, trainer.evaluation.splits["test"], tested)
                scores = seen(trainer, batches)
                row = {"task": task, "tested": tested, **scores, "sigma": sigma, "temperature": value}
                found.append({"arm": arm, **row} if arm else row)
        set_hyperparameters(trainer.model, None, {"temperature": learned})
        return found


def stream(data: Dataset, name: str) -> list[Dataset]:
    """Return the data of every task of a stream; all its splits are changed alike."""

    def changed(split: Split, task: int) -> Split:
        return Split(rotated(split.x, ANGLES[task]) if name == "rotated" else permuted(split.x, task), split.y)

    return [
        replace(data, train=changed(data.train, task), reg=changed(data.reg, task), test=changed(data.test, task))
        for task in range(TASKS)
    ]


def rotated(x: np.ndarray, degrees: float) -> np.ndarray:
    """Return images `[N, C, H, W]` turned counterclockwise, with zeros where there was nothing."""
    import torch
    from torchvision.transforms.functional import InterpolationMode, rotate

    turned: np.ndarray = rotate(torch.tensor(x), degrees, InterpolationMode.BILINEAR).numpy()
    return turned


def permuted(x: np.ndarray, task: int) -> np.ndarray:
    """Return images `[N, C, H, W]` with their pixels in an order of the task's own, the same for all channels."""
    order = np.random.default_rng(task).permutation(x.shape[2] * x.shape[3])
    return np.ascontiguousarray(x.reshape(*x.shape[:2], -1)[:, :, order]).reshape(x.shape)


def _percent(values: dict[int, float]) -> list[float]:
    return [100 * value for value in values.values()]
