"""One trial of the search, and the zero-flag run: trainings of the product, in this process."""

from __future__ import annotations

import time
from typing import Any

import torch

from crossreg.prediction import calibration
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import TrainConfig
from crossreg.services.training.resolve import ResolvedConfig, resolve
from crossreg.services.training.result import predictions_of
from crossreg.services.training.tuning import LONGEST, draw, training_changes
from crossreg.studies.study import Measurement
from crossreg.studies.zero_flag.pairs import Pair
from crossreg.training.course import CourseSettings
from crossreg.training.trainer import Trainer

__all__ = ["batch_of", "refitted", "searched", "zero_flag"]


def zero_flag(
    pair: Pair, data: DataConfig, seed: int, settings: CourseSettings | None = None, **changes: Any
) -> Measurement:
    """Return what `crossreg train --data FILE --model MODEL` reaches and costs, and nothing else said.

    Args:
        pair: network and data.
        data: of the pair.
        seed: of the split and the training.
        settings: other constants of the course.
        changes: fields of `TrainConfig`, for a run that does say something.
    """
    loaded = load_data(data)
    config = resolve(_config(pair, data, seed, **changes), loaded)
    trainer = build_trainer(config, loaded, _device())
    course = trainer.course
    assert course is not None
    course.settings = settings or course.settings
    began = time.perf_counter()
    trainer.fit()
    # its temperature is its own: nothing is fitted afterwards
    return {
        **_scores(trainer, loaded, 1.0),
        "seconds": time.perf_counter() - began,
        "flops": _flops(trainer),
        "examples": len(loaded.train),
        "batch": config.batch_size,
        "networks": config.ensemble,
        "kept": course.kept_step / len(trainer.train),
        "trunk": course.ended_at / len(trainer.train),
    }


def batch_of(pair: Pair, data: DataConfig, seed: int) -> int:
    """Return the examples in a step of the zero-flag run."""
    return resolve(_config(pair, data, seed), load_data(data)).batch_size


def searched(pair: Pair, data: DataConfig, loaded: Dataset, seed: int, index: int) -> Measurement:
    """Return what a trial of the search reaches and costs, temperature-scaled on the held-out split it is chosen by.

    Args:
        pair: network and data.
        data: of the pair.
        loaded: what these are.
        seed: of the split and the search.
        index: of the trial.
    """
    config, values = _trial(pair, data, loaded, seed, index)
    trainer = build_trainer(config, loaded, _device(), selection=["reg"])
    began = time.perf_counter()
    trainer.fit()
    reg = predictions_of(trainer)["reg"]
    temperature = _temperature(reg["mean"], reg["targets"]) if loaded.task == "classification" else 1.0
    return {
        **_scores(trainer, loaded, temperature),
        "held_out": _scores(trainer, loaded, temperature, "reg")["nll" if loaded.task == "classification" else "rmse"],
        "temperature": temperature,
        "seconds": time.perf_counter() - began,
        "flops": _flops(trainer),
        **values,
    }


def refitted(pair: Pair, data: DataConfig, loaded: Dataset, seed: int, index: int, temperature: float) -> Measurement:
    """Return what a trial reaches that is trained again on the held-out data too, with the temperature it had."""
    config, _ = _trial(pair, data, loaded, seed, index)
    everything = load_data(data.model_copy(update={"reg_share": 0.0}))
    trainer = build_trainer(config, everything, _device())
    trainer.fit()
    return {**_scores(trainer, everything, temperature), "flops": _flops(trainer)}


def _device() -> torch.device:
    """Return where trainings take place: pairs are small enough for a CPU, and large ones want a GPU."""
    return torch.device("cuda" if torch.cuda.is_available() else "cpu")


def _config(pair: Pair, data: DataConfig, seed: int, **changes: Any) -> TrainConfig:
    return TrainConfig.model_validate(
        {"model": pair.model, "model_options": pair.options, "data": data.model_dump(), "seed": seed, **changes}
    )


def _trial(
    pair: Pair, data: DataConfig, loaded: Dataset, seed: int, index: int
) -> tuple[ResolvedConfig, dict[str, float]]:
    """Return the training of a trial, and the values that were drawn for it."""
    own = resolve(_config(pair, data, seed), loaded)
    batch = own.rows  # that of a network of the zero-flag run
    values = draw(pair.name, seed, index)
    steps = max(1, round(values["length"] * LONGEST * (len(loaded.train) // batch)))
    fixed: dict[str, Any] = {
        "batch_size": batch,
        "ensemble": 1,
        "ensemble_style": "independent",
        "evaluations": 1,
        "steps": steps,
    }
    fixed |= training_changes(values, loaded.task == "classification")
    return resolve(_config(pair, data, seed, **fixed), loaded), values


def _scores(trainer: Trainer, data: Dataset, temperature: float, split: str = "test") -> dict[str, float]:
    found = predictions_of(trainer)[split]
    mean, targets = found["mean"], found["targets"]
    if data.task == "regression":
        return {"rmse": float((mean.double() - targets.double().reshape(mean.shape)).square().mean().sqrt())}
    scores = calibration.score(calibration.apply_temperature(calibration.log_probabilities(mean), temperature), targets)
    return {"accuracy": scores.accuracy, "nll": scores.nll, "ece": scores.ece}


def _temperature(mean: torch.Tensor, targets: torch.Tensor) -> float:
    return calibration.fit_temperature(
        calibration.log_probabilities(mean), targets, prior=calibration.TEMPERATURE_PRIOR
    )


def _flops(trainer: Trainer) -> float:
    assert trainer.ledger is not None
    return trainer.ledger.cost.flops
