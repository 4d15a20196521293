"""What may be set about the optimizer of theta."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal

from pydantic import Field, field_validator

from crossreg.services.settings import Flag, Settings

__all__ = ["OptimizerConfig", "ResolvedOptimizer"]


class OptimizerConfig(Settings):
    """The optimizer of theta, one of `services/training/optimizers/`; its weight decay is among the regularizers."""

    name: Annotated[str, Flag("optimizer", text="NAME")] = Field(
        default="adamw", description="adamw, sgd, sam, gsam, cpr, learned or learned:FILE; see docs/train.md."
    )
    lr: Annotated[float | None, Flag(default="5e-3, or 1e-3 where the schedule is given")] = Field(
        default=None, gt=0, description="Learning rate of the weights, at the start of its schedule."
    )
    schedule: Annotated[Literal["found", "cosine", "constant"], Flag()] = Field(
        default="found",
        description="Of the learning rate. found decides how long to train: constant until averaged weights get no "
        "better on held-out data, then down to 0; the others go over all epochs.",
    )
    beta2: float | None = Field(
        default=None,
        gt=0,
        lt=1,
        description="Of adamw: how much of the mean of squared gradients stays at a step. None takes 0.95, or 0.999 "
        "where the schedule is given.",
    )
    radius: float = Field(default=0.05, gt=0, description="Of sam and gsam: how far they look for a worse point.")
    surrogate_gap: float = Field(default=0.4, ge=0, le=1, description="Of gsam: alpha, the weight of the gap.")
    kappa_after: float = Field(
        default=0.05,
        gt=0,
        lt=1,
        description="Of cpr: share of the steps after which the norms of that moment become the bounds kappa.",
    )
    kappa_update: float = Field(default=1.0, gt=0, description="Of cpr: mu, how fast the multipliers follow.")

    @field_validator("name")
    @classmethod
    def _absolute(cls, given: str) -> str:
        """Name a file by its whole path: workers run in other folders."""
        kind, colon, file = given.partition(":")
        return f"{kind}:{Path(file).expanduser().absolute()}" if colon and file and "\0" not in file else given


class ResolvedOptimizer(OptimizerConfig):
    """The optimizer of theta, in numbers."""

    lr: float
    beta2: float
