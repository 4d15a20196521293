"""What cross-regularization is compared with: trainings of which some are chosen out of a grid."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from crossreg.services.data import Dataset
from crossreg.studies.paper.training import Follow, train
from crossreg.training.trainer import Trainer

__all__ = ["GRIDS", "Trained", "best_of_grid", "has_dropout"]

GRIDS: dict[str, tuple[float | None, ...]] = {
    "none": (None,),
    "fixed noise": (0.1, 0.25, 0.5, 1.0),
    "dropout": (0.1, 0.2, 0.4),
    "MC dropout": (0.1, 0.2, 0.4),
    "cross-reg": (None,),
    "noise alone": (None,),
}
"""What each is chosen from by NLL on the regularization split: sigma of all layers, or the share that is dropped."""


@dataclass
class Trained:
    """A training that was chosen.

    Attributes:
        trainer: it, ended.
        chosen: the value out of the grid; None where there is none.
        flops: of all trainings among which it was.
        curve: of test examples, while it went on; see `Follow`.
    """

    trainer: Trainer
    chosen: float | None
    flops: float
    curve: list[dict[str, Any]]


def best_of_grid(
    arm: str, config: Mapping[str, Any], data: Dataset, seed: int, points: int = 0, rows: int = 0
) -> Trained:
    """Train with every value of an arm's grid and return the best by NLL on the regularization split.

    Args:
        arm: of `GRIDS`.
        config: fields of `TrainConfig` that all arms share.
        data: the splits; without a regularization split for an arm of one value only.
        seed: of the training.
        points: how often test examples are looked at; 0 looks at none.
        rows: of these, at most.
    """
    found: list[tuple[float, Trained]] = []
    for value in GRIDS[arm]:
        follow = Follow(points, rows, splits=("test",))
        callbacks = [follow] if points else []
        trainer = train({**config, **_regularized(arm, value)}, data, seed, callbacks)
        reg = trainer.evaluated.get("reg")
        assert trainer.ledger is not None
        one = Trained(trainer, value, trainer.ledger.cost.flops, follow.curve)
        found.append((0.0 if reg is None else reg.scores["nll"], one))
    best = min(found, key=lambda pair: pair[0])[1]
    best.flops = sum(one.flops for _, one in found)
    return best


def has_dropout(config: Mapping[str, Any]) -> bool:
    """Say whether the model of a configuration has a place for dropout."""
    from crossreg import models

    return models.takes(config["model"], "dropout")


def _regularized(arm: str, value: float | None) -> dict[str, Any]:
    """Return the fields of a configuration in which an arm differs from the default."""
    fixed = {"learn": False, "value": value}
    found: dict[str, dict[str, Any]] = {
        "none": {"regularizers": {}},
        "fixed noise": {"regularizers": {"noise": fixed}},
        "dropout": {"regularizers": {"dropout": fixed}},
        "MC dropout": {"regularizers": {"dropout": fixed}, "mc_dropout": True},
        "cross-reg": {},
        "noise alone": {"regularizers": {"noise": {}}},
    }
    return found[arm]
