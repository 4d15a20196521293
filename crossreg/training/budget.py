"""What a whole run may cost, as an upper bound: its pace so far says how many steps that pays for."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from crossreg.core.distributed import world_size
from crossreg.core.errors import UserError

if TYPE_CHECKING:
    from crossreg.training.trainer import Trainer

__all__ = ["Budget", "Pace"]


@dataclass(frozen=True)
class Budget:
    """What a run may cost, with all that decides something counted, and without reports for the reader.

    Attributes:
        amount: how much.
        unit: "seconds" of training, whatever the number of workers; "flops"; or "passes": FLOPs in those of a pass of
            one network over the training split, forward and backward.
        name: as it was asked for, in messages.
    """

    amount: float
    unit: Literal["seconds", "flops", "passes"]
    name: str = ""

    def __str__(self) -> str:
        """Return it as it was asked for, or with its unit."""
        return self.name or f"{self.amount:.3g} {self.unit}"

    def check(self, trainer: Trainer, steps: int) -> None:
        """Refuse a budget that does not pay for a few steps, where that is known before they are taken.

        Raises:
            UserError: says what they cost; or the model's operations cannot be counted.
        """
        if self.unit == "seconds":
            return
        one = self._of_flops(self._theta(trainer) * trainer.train.batch_size, trainer)
        if steps * one > self.amount:
            raise UserError(
                f"a budget of {self} does not pay for {steps} steps, of which each costs {one:.3g} {self.unit}; give "
                f"{math.ceil(100 * steps * one / self.amount) / 100:g} times as much at least"
            )

    def spent(self, trainer: Trainer) -> float:
        """Return what a run cost so far, in the budget's unit; counted on this rank."""
        cost = trainer.cost()
        return cost.worker_seconds / world_size() if self.unit == "seconds" else self._of_flops(cost.flops, trainer)

    def _of_flops(self, flops: float, trainer: Trainer) -> float:
        if math.isnan(flops):
            raise UserError(f"the FLOPs of this model cannot be counted, so {self} is no bound; give one in seconds")
        return flops if self.unit == "flops" else flops / (self._theta(trainer) * trainer.train.num_examples)

    @staticmethod
    def _theta(trainer: Trainer) -> float:
        assert trainer.ledger is not None
        return trainer.ledger.flops_per_example["theta"]


@dataclass(frozen=True)
class Pace:
    """What a run cost up to a step.

    Attributes:
        step: the step.
        spent: until then, in a budget's unit.
        checks: how many there were.
        on_checks: their part of what was spent.
    """

    step: int
    spent: float
    checks: int
    on_checks: float

    def affordable(self, amount: float, growth: float) -> int:
        """Return how many steps an amount pays for, with the checks on the way, at steps that grow by a factor."""
        a_step = (self.spent - self.on_checks) / self.step
        a_check = self.on_checks / max(self.checks, 1)
        times = max(1.0, (amount - self.on_checks) / max(a_step * self.step, 1e-12))
        to_come = 2 + math.log(times) / math.log(growth)
        return int((amount - self.on_checks - to_come * a_check) / max(a_step, 1e-12))


def agreed(steps: int, device: torch.device) -> int:
    """Return the number of steps that rank 0 found: the clocks of the others say something else."""
    if world_size() == 1:
        return steps
    told = torch.tensor([min(steps, 2**62)], dtype=torch.int64, device=device)
    dist.broadcast(told, 0)
    return int(told)
