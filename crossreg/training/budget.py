"""What a whole run may cost, as an upper bound: its pace so far says how many steps that pays for."""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

import torch
import torch.distributed as dist

from crossreg.core.distributed import world_size
from crossreg.core.errors import UserError
from crossreg.prediction.evaluation import num_passes
from crossreg.prediction.predict import num_draws

if TYPE_CHECKING:
    from crossreg.training.trainer import Trainer

__all__ = ["Budget", "Pace", "agreed"]


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
        assert trainer.ledger is not None
        return trainer.ledger.seconds if self.unit == "seconds" else self._of_flops(cost.flops, trainer)

    def of_a_check(self, trainer: Trainer, held_out: str) -> float:
        """Return what evaluating a split will cost, in the budget's unit; 0 for seconds, which only it can tell."""
        if self.unit == "seconds":
            return 0.0
        plan, ledger = trainer.evaluation, trainer.ledger
        assert ledger is not None
        passes = num_passes(trainer.loss, num_draws(trainer.model, plan.samples, plan.dropout))
        examples = passes * plan.splits[held_out].num_examples
        return self._of_flops(ledger.flops_per_example["forward"] * examples, trainer)

    def of_rho(self, trainer: Trainer) -> float:
        """Return what learning will cost a step, in the budget's unit, where it has not begun."""
        ledger, rho = trainer.ledger, trainer.regularizer
        assert ledger is not None
        if rho is None or self.unit == "seconds" or ledger.examples.get("rho"):
            return 0.0
        forward, _ = rho.estimator.passes(rho.samples)
        rows = int(getattr(rho.reg_loader, "batch_size", None) or 0)
        return self._of_flops(ledger.flops_per_example.get("rho", math.nan) * forward * rows / rho.interval, trainer)

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
        unit: of what follows, a budget's.
        step: the step.
        a_step: what a step costs, without checks.
        on_checks: what checks have cost.
        a_check: what one costs.
    """

    unit: str
    step: int
    a_step: float
    on_checks: float
    a_check: float

    def affordable(self, amount: float, next_check: int, growth: float) -> int:
        """Return how many steps an amount pays for, with the checks on the way.

        Args:
            amount: of the budget.
            next_check: the step of the next one.
            growth: factor between the steps of checks.
        """

        def cost(steps: int) -> float:
            # one more where the last of all steps makes it
            checks = 2 + math.log(max(1.0, steps / next_check)) / math.log(growth)
            return self.a_step * steps + self.on_checks + checks * self.a_check

        if self.a_step <= 0:
            return sys.maxsize
        low, high = 0, int(amount / self.a_step) + 1
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if cost(middle) <= amount else (low, middle)
        return low


def agreed(steps: int, device: torch.device) -> int:
    """Return the number of steps that rank 0 found: the clocks of the others say something else."""
    if world_size() == 1:
        return steps
    told = torch.tensor([min(steps, 2**62)], dtype=torch.int64, device=device)
    dist.broadcast(told, 0)
    return int(told)
