"""One training of the product in this process, followed closely, and everything its predictions are scored by."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import Tensor

from crossreg.batches import Batches
from crossreg.prediction import calibration
from crossreg.prediction.evaluation import evaluate
from crossreg.regularizer import RhoUpdate
from crossreg.regularizers import set_hyperparameters
from crossreg.regularizers.base import read_all
from crossreg.regularizers.noise import sigmas
from crossreg.regularizers.temperature import temperature
from crossreg.services.data import Dataset
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import resolve
from crossreg.services.training.result import predictions_of
from crossreg.training.callback import Callback
from crossreg.training.trainer import Trainer

__all__ = ["Follow", "Hold", "Replay", "build", "fixed_noise", "scores", "scores_of", "sigma_of", "train"]

COSINE: dict[str, Any] = {"optimizer": {"schedule": "cosine"}, "ensemble": 1, "evaluations": 1}
"""One network, AdamW with the default rate and a cosine schedule; noise and temperature are learned with it unless the
regularizers say otherwise."""


def build(config: Mapping[str, Any], data: Dataset, seed: int, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Return a training, ready to begin, on a GPU where there is one.

    Args:
        config: fields of `TrainConfig` but data and seed.
        data: loaded with the same seed.
        seed: of weights, order and draws.
        callbacks: of the training.
    """
    whole = {**COSINE, **config, "data": {"name": data.name}, "seed": seed}
    device = torch.device("cuda" if torch.cuda.is_available() else "cpu")
    return build_trainer(resolve(TrainConfig.model_validate(whole), data), data, device, list(callbacks))


def train(config: Mapping[str, Any], data: Dataset, seed: int, callbacks: Sequence[Callback] = ()) -> Trainer:
    """Return a training that has ended; arguments are those of `build`."""
    trainer = build(config, data, seed, callbacks)
    trainer.fit()
    return trainer


class Follow(Callback):
    """Evaluates a training from time to time, for the reader alone.

    Args:
        points: how often, evenly spaced; the last is the end.
        rows: examples of each split, at most.
        samples: noise draws.
        splits: which; "reg" is another.

    Attributes:
        curve: at every point "step", "epoch", "temperature", "sigma" (a list, one a layer: the mean of its units), and
            of each split "accuracy", "nll", "ece" under keys such as "train/accuracy".
        schedule: sigmas and temperature by name at the start and after every update, each with its step.
    """

    def __init__(
        self, points: int, rows: int = 400, samples: int = 3, splits: Sequence[str] = ("train", "test")
    ) -> None:
        self.points, self.rows, self.samples, self.splits = points, rows, samples, splits
        self.curve: list[dict[str, Any]] = []
        self.schedule: list[tuple[int, dict[str, float]]] = []

    def on_start(self, trainer: Trainer) -> None:
        """Look at the untrained model too."""
        self.schedule.append((trainer.step, _learned(trainer)))
        self._look(trainer)

    def on_rho_update(self, trainer: Trainer, update: RhoUpdate) -> None:
        """Note what was learned."""
        self.schedule.append((trainer.step, _learned(trainer)))

    def on_step(self, trainer: Trainer) -> None:
        """Look where it is time."""
        if trainer.step * self.points // trainer.num_steps > (trainer.step - 1) * self.points // trainer.num_steps:
            self._look(trainer)

    def _look(self, trainer: Trainer) -> None:
        found: dict[str, Any] = {
            "step": trainer.step,
            "epoch": trainer.epoch,
            "temperature": float(temperature(trainer.model)),
            "sigma": sigma_of(trainer.model),
        }
        for name in self.splits:
            few = _first(trainer.train if name == "train" else trainer.evaluation.splits[name], self.rows)
            dropout = trainer.evaluation.dropout
            seen = evaluate(trainer.model, trainer.loss, few, self.samples, dropout=dropout).scores
            found |= {f"{name}/{key}": seen[key] for key in ("accuracy", "nll", "ece") if key in seen}
        self.curve.append(found)


class Replay(Callback):
    """Sets hyperparameters to what they were at each step of another training.

    Args:
        schedule: `(step, values by name)` in the order of the steps; see `Follow.schedule`.
    """

    def __init__(self, schedule: Sequence[tuple[int, Mapping[str, float]]]) -> None:
        self.schedule = list(schedule)

    def on_start(self, trainer: Trainer) -> None:
        """Set those of the start; comes before what looks at them."""
        self.on_step(trainer)

    def on_step(self, trainer: Trainer) -> None:
        """Set those whose step has come."""
        while self.schedule and self.schedule[0][0] <= trainer.step:
            set_hyperparameters(trainer.model, trainer.optimizer, dict(self.schedule.pop(0)[1]))


class Hold(Callback):
    """Keeps what is learned where it is when the training starts or goes on; comes before those that look at it.

    Args:
        bases: names of the regularizers, such as "noise"; the others are learned on.
    """

    def __init__(self, *bases: str) -> None:
        self.bases = bases
        self._held: dict[str, float] = {}

    def on_start(self, trainer: Trainer) -> None:
        """Remember the values."""
        assert trainer.regularizer is not None
        learned = trainer.regularizer.hyperparameters
        self._held = read_all({name: one for name, one in learned.items() if one.base in self.bases})

    def on_rho_update(self, trainer: Trainer, update: RhoUpdate) -> None:
        """Take back what was changed."""
        set_hyperparameters(trainer.model, trainer.optimizer, self._held)


def sigma_of(model: torch.nn.Module) -> list[float]:
    """Return sigma by layer, the mean of its units."""
    return [float(value.mean()) for value in sigmas(model).values()]


def _learned(trainer: Trainer) -> dict[str, float]:
    """Return the mean sigma of every layer, and the temperature."""
    layers = dict(zip(sigmas(trainer.model), sigma_of(trainer.model), strict=True))
    return layers | {"temperature": float(temperature(trainer.model))}


def fixed_noise(model: torch.nn.Module) -> dict[str, Any]:
    """Return the section of a configuration that fixes every layer's noise and the temperature at what a model has."""
    layers = {name: {"learn": False, "value": float(value)} for name, value in sigmas(model).items()}
    held = {"learn": False, "value": float(temperature(model))}
    return {"noise": {"learn": False, "value": next(iter(layers.values()))["value"]}, **layers, "temperature": held}


def scores_of(trainer: Trainer) -> dict[str, float]:
    """Return the scores of a training that has ended on the test split; see `scores`."""
    found = predictions_of(trainer)
    reg = found.get("reg")
    return scores(
        found["test"]["mean"], found["test"]["targets"], *(reg[key] for key in ("mean", "targets")) if reg else ()
    )


def scores(
    mean: Tensor, targets: Tensor, reg_mean: Tensor | None = None, reg_targets: Tensor | None = None
) -> dict[str, float]:
    """Return accuracy, NLL, Brier score, and calibration error in bins of equal width and of equal mass.

    Args:
        mean: probabilities `[N, C]` averaged over draws and networks.
        targets: `[N]`.
        reg_mean: the same of the regularization split, on which a temperature is fitted: then the scores with it are
            returned too, as "nll_scaled" and so on, and "fitted", the temperature.
        reg_targets: `[M]`.
    """

    def of(p: Tensor) -> dict[str, float]:
        return {**calibration.score(p, targets).as_dict(), "ece_adaptive": calibration.ece(p, targets, adaptive=True)}

    found = of(mean)
    if reg_mean is not None and reg_targets is not None:
        fitted = calibration.fit_temperature(
            calibration.log_probabilities(reg_mean), reg_targets, prior=calibration.TEMPERATURE_PRIOR
        )
        scaled = of(calibration.apply_temperature(calibration.log_probabilities(mean), fitted))
        found |= {f"{name}_scaled": value for name, value in scaled.items()} | {"fitted": fitted}
    return found


def _first(batches: Batches, rows: int) -> list[tuple[Tensor, Tensor]]:
    """Return the first rows as stored, ready for the model."""
    x, y = batches.x[:rows].to(batches.device), batches.y[:rows].to(batches.device)
    return [(batches.preprocess(x) if batches.preprocess else x, y)]
