"""The trainings of the study of calibration, and what their predictions are worth where images are corrupted."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor

from crossreg.batches import Batches
from crossreg.core.random import derive_seed
from crossreg.prediction.calibration import apply_temperature, log_probabilities, score
from crossreg.prediction.evaluation import evaluate
from crossreg.services.data import Dataset, Split
from crossreg.services.training.result import predictions_of
from crossreg.studies.paper.arms import best_of_grid
from crossreg.studies.paper.calibration.corruptions import CORRUPTIONS, SEVERITIES, corrupt, flip
from crossreg.studies.paper.training import scores, train
from crossreg.studies.study import Measurement
from crossreg.training.trainer import Trainer

__all__ = ["BLURRED", "CLEAN", "FLIPPED", "MEMBERS", "corrupted", "measure", "measure_members", "with_reg"]

CLEAN, BLURRED, FLIPPED = "clean", "blurred", "20 % flipped"
"""What the regularization split may be."""
MEMBERS = 5
_BLUR, _SHARE = 5, 0.2  # severity, and share of the labels


def with_reg(data: Dataset, reg: str, seed: int) -> Dataset:
    """Return splits of which the regularization split is not like the test split.

    Args:
        data: as it is.
        reg: `CLEAN`, `BLURRED` or `FLIPPED`.
        seed: of the labels that are flipped.
    """
    x, y = data.reg.x, data.reg.y
    if reg == BLURRED:
        x = corrupt(torch.from_numpy(x), "blur", _BLUR).numpy()
    elif reg == FLIPPED:
        y = flip(y, _SHARE, len(data.classes), seed)
    return replace(data, reg=Split(x, y))


def measure(arm: str, reg: str, settings: Mapping[str, Any], data: Dataset, seed: int) -> Measurement:
    """Train one arm and return what its predictions are worth.

    Args:
        arm: of `GRIDS`.
        reg: what the regularization split is.
        settings: of the scale.
        data: as it is.
        seed: of the training.
    """
    data = with_reg(data, reg, seed)
    done = best_of_grid(arm, settings["training"], data, seed, settings["points"], settings["followed"])
    seen = predictions_of(done.trainer)
    found = scores(*(seen[split][key] for split in ("test", "reg") for key in ("mean", "targets")))
    shift = corrupted([done.trainer], found["fitted"], settings) if reg == CLEAN else []
    return {
        "arm": arm,
        "reg": reg,
        "seed": seed,
        "chosen": done.chosen,
        "flops": done.flops,
        **found,
        "curve": [{key: look[key] for key in _LOOKED_AT} for look in done.curve],
        "shift": shift,
    }


_LOOKED_AT = ("step", "epoch", "test/accuracy", "test/nll", "test/ece")


def measure_members(settings: Mapping[str, Any], data: Dataset, seed: int) -> list[Measurement]:
    """Train the members of an ensemble without noise; return what the first is worth alone, scaled, and all of them.

    The first is scaled on regularization splits that are not like the test split too.
    """
    first = best_of_grid("none", settings["training"], data, seed, settings["points"], settings["followed"])
    seeds = [derive_seed(seed, "member", place) % 2**31 for place in range(1, MEMBERS)]
    config = {**settings["training"], "regularizers": {}}
    trainers = [first.trainer, *(train(config, data, one) for one in seeds)]
    alone, together = _averaged(trainers[:1]), _averaged(trainers)
    about: Measurement = {"reg": CLEAN, "seed": seed, "chosen": None, "flops": first.flops, "curve": []}
    raw: Measurement = {**about, "arm": "none", **scores(*alone["test"], *alone["reg"])}
    raw["curve"] = [{key: look[key] for key in _LOOKED_AT} for look in first.curve]
    raw["shift"] = corrupted(trainers[:1], raw["fitted"], settings)
    found = [raw, _as_scaled(raw)]
    for reg in (BLURRED, FLIPPED):
        other = with_reg(data, reg, seed).reg
        held_out = _predicted(trainers[:1], torch.from_numpy(other.x), torch.from_numpy(other.y))
        found.append(_as_scaled({**about, "reg": reg, **scores(*alone["test"], *held_out), "shift": []}))
    whole: Measurement = {
        **about,
        "arm": "ensemble",
        "flops": MEMBERS * first.flops,
        **scores(*together["test"], *together["reg"]),
    }
    return [*found, {**whole, "shift": corrupted(trainers, whole["fitted"], settings)}]


def corrupted(trainers: Sequence[Trainer], fitted: float, settings: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Return scores on test images of every corruption and severity, also with a temperature.

    Args:
        trainers: that have ended, whose predictions are averaged.
        fitted: the temperature, which saw no corrupted image.
        settings: "shifted", images at most, and "draws" of noise.
    """
    test = trainers[0].evaluation.splits["test"]
    x, y = test.x[: settings["shifted"]], test.y[: settings["shifted"]]
    found = []
    for kind in CORRUPTIONS:
        for severity in SEVERITIES:
            mean, targets = _predicted(trainers, corrupt(x, kind, severity), y, settings["draws"])
            scaled = score(apply_temperature(log_probabilities(mean), fitted), targets).as_dict()
            found.append(
                {
                    "kind": kind,
                    "severity": severity,
                    **score(mean, targets).as_dict(),
                    **{f"{name}_scaled": value for name, value in scaled.items()},
                }
            )
    return found


def _predicted(trainers: Sequence[Trainer], x: Tensor, y: Tensor, draws: int = 16) -> tuple[Tensor, Tensor]:
    """Return averaged probabilities of stored images, and their targets."""
    found = []
    for trainer in trainers:
        test = trainer.evaluation.splits["test"]
        batches = Batches(x, y, test.batch_size, preprocess=test.preprocess, shuffle=False, device=test.device)
        dropout = trainer.evaluation.dropout
        found.append(evaluate(trainer.model, trainer.loss, batches, draws, dropout=dropout))
    return torch.stack([one.mean for one in found]).mean(0), found[0].targets


def _averaged(trainers: Sequence[Trainer]) -> dict[str, tuple[Tensor, Tensor]]:
    """Return averaged probabilities and targets by split, of the last evaluations."""
    seen = [predictions_of(trainer) for trainer in trainers]
    return {
        split: (torch.stack([one[split]["mean"] for one in seen]).mean(0), seen[0][split]["targets"])
        for split in ("test", "reg")
    }


def _as_scaled(raw: Measurement) -> Measurement:
    """Return the measurement of temperature scaling: what the raw one is with its temperature."""

    def moved(plain: Mapping[str, Any]) -> dict[str, Any]:
        return dict(plain) | {key.removesuffix("_scaled"): one for key, one in plain.items() if key.endswith("_scaled")}

    return moved(raw) | {"arm": "temperature", "curve": [], "shift": [moved(one) for one in raw["shift"]]}
