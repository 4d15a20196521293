"""What is compared."""

from __future__ import annotations

import math
from typing import Annotated, Literal

from pydantic import Field, model_validator

from crossreg.core.errors import UserError
from crossreg.services.settings import Flag, Settings
from crossreg.services.training.config import TrainConfig

__all__ = ["CompareConfig", "Unit", "factor_of"]

Unit = Literal["flops", "examples", "worker_seconds"]
"""What budgets are counted in."""


class CompareConfig(Settings):
    """What is compared."""

    training: TrainConfig
    methods: Annotated[tuple[str, ...], Flag()] = Field(
        default=("crossreg", "none", "tuned-search", "pbt"),
        description="Comma-separated; `--methods list` describes them all.",
    )
    population: Annotated[int, Flag()] = Field(default=8, ge=2, le=10_000, description="Trials of a search.")
    seeds: Annotated[int, Flag()] = Field(
        default=3, ge=1, le=10_000, description="How many seeds, counted from --seed on."
    )
    budgets: Annotated[tuple[str, ...], Flag("budget")] = Field(
        default=("matched", "full"),
        description="Compute of a search, comma-separated: matched (that of one crossreg run), full (population times "
        "that), or a factor.",
    )
    unit: Annotated[Unit, Flag()] = Field(default="flops", description="What budgets are counted in.")
    select_on: Annotated[Literal["nll", "accuracy"], Flag()] = Field(
        default="nll", description="Score of the regularization split that searches choose by."
    )

    @model_validator(mode="after")
    def _check(self) -> CompareConfig:
        for name, values in (("methods", self.methods), ("budgets", self.budgets)):
            if not values or len(set(values)) < len(values):
                raise UserError(f"{name} is {','.join(values)!r}; give at least one, each once")
        for budget in self.budgets:
            factor_of(budget, self.population)
        if self.training.budget is not None:
            raise UserError(
                f"the training has a budget of {self.training.budget}, but those of a comparison are multiples of what "
                "the run may cost by its epochs or steps; give one of these"
            )
        if not self.training.finds_length and not self.training.learned:
            raise UserError(
                "the training learns nothing, but a comparison is over what it learns; name what to --learn, and "
                "choose what it is compared with by --methods"
            )
        return self


def factor_of(budget: str, population: int) -> float:
    """Return the factor that a budget's name stands for: 1 for "matched", the population's size for "full".

    Raises:
        UserError: neither of these nor a positive number.
    """
    known = {"matched": 1.0, "full": float(population)}
    if budget in known:
        return known[budget]
    try:
        factor = float(budget)
    except ValueError:
        factor = math.nan
    if not (math.isfinite(factor) and factor > 0):
        raise UserError(f"budget is {budget!r}; allowed are matched, full, or a positive factor such as 2.5")
    return factor
