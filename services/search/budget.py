"""How much compute a method may use: planned in steps before it starts, and metered while it runs."""

from __future__ import annotations

import math
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from crossreg.core.errors import UserError
from crossreg.estimators import Estimator
from crossreg.losses import as_loss
from crossreg.prediction.evaluation import num_passes
from crossreg.regularizers.base import rho_hyperparameters, rho_parameters
from crossreg.services.data import Dataset
from crossreg.services.search.spec import Record, digest
from crossreg.services.training.assemble import build_estimator, build_model, learned_names
from crossreg.services.training.resolve import ResolvedConfig
from crossreg.training.compute import Cost, measure_flops
from crossreg.training.course import CourseSettings

__all__ = ["Budget", "Meter", "Plan"]


@dataclass(frozen=True)
class Budget:
    """What a method may use.

    Attributes:
        name: as the user gave it: "matched", "full" or a factor.
        factor: multiple of what the cross-regularized run uses.
        unit: the name of a field of `Cost`.
        amount: factor times that run's, in the unit.
    """

    name: str
    factor: float
    unit: str
    amount: float


class Plan:
    """What training a configuration costs, known before it runs: counts are exact, seconds are not known here.

    Args:
        config: what would be trained.
        data: on what.
        select: whether the regularization split's evaluations count.
    """

    def __init__(self, config: ResolvedConfig, data: Dataset, select: bool) -> None:
        self.config, self.data, self.select = config, data, select
        rows = 2 * config.shares
        x = torch.from_numpy(data.train.x[:rows].copy()).float()
        y = torch.from_numpy(data.train.y[:rows].copy())
        self.estimator = build_estimator(config, x, y, len(y))
        self.flops = _flops(config, data, x, y, self.estimator)
        draws = config.mc_dropout or any(name.partition("/")[0] == "noise" for name in config.regularizers)
        final = config.final_samples if config.final_test else config.evaluate_samples
        self.draws, self.final_draws = (config.evaluate_samples, final) if draws else (1, 1)
        self.loss = as_loss(data.task)

    def cost(self, steps: int) -> Cost:
        """Return what so many steps cost, with evaluations at the end of each of the run's intervals."""
        config = self.config
        examples = {"theta": float(config.gradient_evaluations * steps * config.batch_size)}
        backward = examples["theta"]
        if config.learned:
            updates = steps // config.rho.interval
            rho_forward, rho_backward = self.estimator.passes(config.rho.samples)
            examples["rho"] = updates * rho_forward * config.rho.batch_size
            backward += updates * rho_backward * config.rho.batch_size
        if config.finds_length:
            settings = CourseSettings()
            checks = settings.most_checks(steps, len(self.data.train) // config.batch_size * config.shares)
            examples["forward"] = checks * num_passes(self.loss, self.draws) * len(self.data.reg)
        elif self.select:
            interval = config.model_copy(update={"steps": steps}).evaluation_interval
            evaluations = math.ceil(steps / interval) - 1
            passes = evaluations * num_passes(self.loss, self.draws) + num_passes(self.loss, self.final_draws)
            examples["forward"] = passes * len(self.data.reg)
        flops = sum(self.flops.get(phase, math.nan) * n for phase, n in examples.items())
        return Cost(examples=sum(examples.values()), backward_examples=backward, flops=flops)

    def selection_share(self, steps: int) -> float:
        """Return the share of the FLOPs that evaluations take on which a choice depends."""
        without = Plan(self.config, self.data, select=False)
        return 1 - without.cost(steps).flops / self.cost(steps).flops

    def steps_within(self, amount: float, unit: str) -> int:
        """Return the largest number of steps that costs no more than an amount.

        Raises:
            UserError: not even one step does, or the model's operations cannot be counted.
        """

        def value(steps: int) -> float:
            return float(getattr(self.cost(steps), unit))

        if math.isnan(value(1)):
            raise UserError(f"the FLOPs of model {self.config.model!r} cannot be counted; use --unit examples")
        if value(1) > amount:
            raise UserError(
                f"a budget of {amount:.3g} {unit} does not pay for one step of a trial ({value(1):.3g}); use a larger "
                "budget, a smaller population or more epochs"
            )
        low, high = 1, 2
        while value(high) <= amount:
            low, high = high, 2 * high
        while high - low > 1:
            middle = (low + high) // 2
            low, high = (middle, high) if value(middle) <= amount else (low, middle)
        return low


_measured: dict[str, dict[str, float]] = {}


def _flops(config: ResolvedConfig, data: Dataset, x: Tensor, y: Tensor, estimator: Estimator) -> dict[str, float]:
    """Return FLOPs per example of each phase, measured once a model on two examples."""
    rho = config.rho
    regularizers = {name: (one.learn, one.options) for name, one in config.regularizers.items()}
    key = digest([config.model, config.model_options, config.ensemble, config.ensemble_style, regularizers,
                  rho.samples, rho.estimator, rho.unroll_steps,
                  rho.neumann_terms, data.input_shape, data.num_outputs, data.task])  # fmt: skip
    if key not in _measured:
        torch.manual_seed(0)
        model = build_model(config, data)
        found, learned = rho_hyperparameters(model), learned_names(config, model)
        chosen = {id(found[name].rho) for name in learned}
        names = [name for name, parameter in rho_parameters(model).items() if id(parameter) in chosen]
        _measured[key] = measure_flops(model, as_loss(data.task), x, y, rho.samples, estimator, names)
    return _measured[key]


class Meter:
    """Adds up what trials cost and raises a flag when the next intervals would exceed the limit.

    Searches whose trials have a fixed length are planned and need none; it is for those that spend what they save on
    more trials, and for budgets in seconds, which no plan foresees.

    Args:
        unit: which field of `Cost`.
        limit: how much.
        slots: trials at a time; each may have an interval on its way.
        flag: file to write; workers that see it end their trials.
    """

    def __init__(self, unit: str, limit: float, slots: int, flag: Path) -> None:
        self.unit, self.limit, self.slots, self.flag = unit, limit, slots, flag
        self.spent = self.largest = 0.0

    def add(self, record: Record, running: int) -> None:
        """Add an interval; `running` trials are not at their end."""
        cost = float(getattr(record.cost, self.unit))
        self.spent += cost
        # not this one's: a trial's last interval costs more than the others, its evaluation takes more draws
        self.largest = max(self.largest, cost)
        # all that run now will finish their intervals: together they may go one interval beyond, and no more
        if self.spent + min(running, self.slots) * self.largest > self.limit + self.largest:
            self.flag.touch()
