"""How long to train, found while training: a trunk at a constant rate, a stop, and a cooldown from the best moment.

    trunk      constant learning rate; the averaged weights are checked on held-out data at steps t_k = t_0 growth^k
    kept       the latest check that is not worse than the best by more than the standard error of their difference,
               example by example: a lucky early check does not end a training that goes on getting better
    stop       at `overrun` times the step of the kept check: no patience to choose, and the same for trainings of a
               hundred steps and of a million
    cooldown   from the state of the kept check the rate falls to 0, over a share of the steps that led there, on all
               data; what was held out is trained on too, since nothing is decided any more

A check looks at the held-out loss after temperature scaling: what a temperature can mend is no reason to stop. The
temperature of the kept check, fitted to averaged weights that have not seen these data, is the model's own.

Source: constant rate, averaging and cooldown instead of a tuned schedule: Hagele et al. 2024, arXiv:2405.18392;
selecting after temperature scaling: arXiv:2501.19195; one standard error: Breiman et al. 1984, Classification and
Regression Trees, section 3.4.3.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn
from torch.optim.swa_utils import AveragedModel

from crossreg.batches import Batches
from crossreg.core import metrics
from crossreg.core.distributed import broadcast_buffers
from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap
from crossreg.losses import Classification, GaussianRegression, Loss
from crossreg.prediction import calibration
from crossreg.prediction.diversity import Alone, best_alone
from crossreg.prediction.evaluation import Evaluation
from crossreg.regularizers.base import rho_hyperparameters
from crossreg.regularizers.temperature import temperature
from crossreg.training.averaging import averaged
from crossreg.training.budget import Budget, Pace, agreed

if TYPE_CHECKING:
    from crossreg.training.trainer import Trainer

__all__ = ["Course", "CourseSettings"]

_FIRST_LOOK = 8
"""The step at which a run first sees what it costs; the first ones take longer than those that follow."""
_WARMUP_SHARE = 0.1
"""Of a run, that the rising of its rate takes at most."""


@dataclass(frozen=True)
class CourseSettings:
    """The constants of a course; how little they matter is in `docs/results/zero-flag.md`.

    Epochs are passes that each network makes over the training split: one of four sees a quarter of every batch.

    Attributes:
        first: epochs before the first check: a network that has hardly begun is nothing to go back to, though it may be
            better than one that knows a little.
        first_steps: the same in steps; both have to be over.
        growth: factor between checks, in steps.
        overrun: the trunk ends at this multiple of the kept check's step.
        least: epochs of a trunk before it may end.
        least_steps: the same in steps; both have to be over.
        cooldown: steps of the cooldown, as a share of those that led to the kept check.
        warmup: epochs over which the rate rises from 0.
        power: of the average, see `crossreg.training.averaging`.
    """

    first: float = 1.0
    first_steps: int = 50
    growth: float = 1.25
    overrun: float = 2.0
    least: float = 5.0
    least_steps: int = 200
    cooldown: float = 0.3
    warmup: float = 1.0
    power: int = 9

    def first_check(self, epoch: int) -> int:
        """Return its step, given the steps of an epoch."""
        return max(round(self.first * epoch), self.first_steps)

    def most_checks(self, steps: int, epoch: int) -> int:
        """Return how many checks a run of so many steps makes if its trunk is as long as it can be."""
        trunk, first = steps / (1 + self.cooldown), self.first_check(epoch)
        return 1 if trunk <= first else 2 + int(math.log(trunk / first) / math.log(self.growth))


@dataclass
class _Judged:
    """The held-out split at a check, its predictions scaled by a temperature that was fitted on them.

    Attributes:
        losses: of every example, float64 `[N]`; a single one, of all, where the loss knows none of examples.
        temperature: what the model would need; None where its loss knows none.
        scores: of the scaled predictions.
        mean: these predictions.
        targets: of the split.
        alone: of an ensemble, the member that is best by itself, see `crossreg.prediction.diversity`; else None.
    """

    losses: Tensor
    temperature: float | None
    scores: dict[str, float]
    mean: Tensor
    targets: Tensor
    alone: Alone | None = None

    @property
    def loss(self) -> float:
        """The mean over examples; infinite where predictions are no numbers."""
        return float(self.losses.mean())


@dataclass
class _Kept:
    """A check, and the state that goes on from there."""

    step: int
    judged: _Judged
    model: dict[str, Any]
    optimizer: dict[str, Any]


class Course:
    """Decides how long a training takes; `Trainer` asks it at every step. Works on every rank alike.

    Args:
        everything: batches of the training and the held-out split together, for the cooldown; None trains on the
            training split alone to the end.
        held_out: name of the split, in the trainer's evaluation, that decides.
        settings: its constants.
        budget: what the whole run may cost, beside the steps that the trainer is given; None bounds nothing more.

    Attributes:
        average: the averaged weights.
        cooling: the trunk has ended.
        ended_at: the step at which it did.
        next_check: the step of the next check.
        most: steps that the run may take in all.
    """

    def __init__(
        self,
        everything: Batches | None = None,
        held_out: str = "reg",
        settings: CourseSettings | None = None,
        budget: Budget | None = None,
    ) -> None:
        self.everything, self.held_out = everything, held_out
        self.settings = settings or CourseSettings()
        self.budget = budget
        self.average: AveragedModel | None = None
        self.cooling = False
        self.ended_at = 0
        self.next_check = 0
        self.most = 0
        self._kept: _Kept | None = None
        self._lowest: Tensor | None = None  # losses of the check with the lowest mean
        self._peak: list[float] = []
        self._full_was_checked = False
        self._pace: Pace | None = None
        self._before_check = 0.0
        self._cut_by_budget = False

    @property
    def kept_step(self) -> int:
        """Step of the check that is kept; 0 before the first."""
        return self._kept.step if self._kept else 0

    @property
    def merged(self) -> bool:
        """Whether held-out data are trained on now, so that nothing may be learned or judged by them any more."""
        return self.cooling and self.everything is not None

    def take_rates(self, optimizer: torch.optim.Optimizer) -> None:
        """Remember the learning rates of the trunk, before a checkpoint brings others."""
        self._peak = [group["lr"] for group in optimizer.param_groups]
        for group in optimizer.param_groups:  # where PyTorch's schedules keep them too, for who looks there
            group.setdefault("initial_lr", group["lr"])

    def begin(self, trainer: Trainer) -> None:
        """Get ready, before the first step of a fresh or restored run."""
        if not self.cooling:
            self.most = trainer.num_steps
            if self.budget is not None:
                self.budget.check(trainer, 1 + _FIRST_LOOK + self._cooldown_of(_FIRST_LOOK))
            self._bound(trainer)
        if self.average is None:
            self.average = averaged(trainer.model, self.settings.power)
            self.next_check = self.settings.first_check(_epoch(trainer))

    def predictor(self, trainer: Trainer) -> nn.Module:
        """Return the model that is worth evaluating now: the averaged one in the trunk, the trained one after it."""
        assert self.average is not None
        inner: nn.Module = self.average.module
        return trainer.model if self.cooling else inner

    def set_rate(self, trainer: Trainer) -> None:
        """Set the learning rate of the next step."""
        if self.cooling:
            factor = (trainer.num_steps - trainer.step) / (trainer.num_steps - self.ended_at)
        else:
            factor = min(1.0, (trainer.step + 1) / max(1, self._warmup_steps(trainer)))
        for group, peak in zip(trainer.optimizer.param_groups, self._peak, strict=True):
            group["lr"] = peak * factor

    def after_step(self, trainer: Trainer) -> bool:
        """Average the weights of the step just done; say whether this step is a check."""
        if self.cooling:
            return False
        assert self.average is not None
        self.average.update_parameters(unwrap(trainer.model))
        step = trainer.step
        if self.budget is not None and _FIRST_LOOK <= step < self.next_check and step.bit_count() == 1:
            self._look(trainer)
        due = step >= self.next_check or (self._full(trainer) and not self._full_was_checked)
        if due and self.budget is not None:
            self._before_check = self.budget.spent(trainer)
        return due

    def check(self, trainer: Trainer) -> dict[str, float]:
        """Judge the evaluation that was just made, and keep the state if it is worth going on from."""
        found = trainer.evaluated[self.held_out]
        judged = _judged(trainer.loss, self.predictor(trainer), found)
        if math.isfinite(judged.loss) and not (self._lowest is not None and _worse(judged.losses, self._lowest)):
            if found.members is not None and judged.temperature is not None:
                own = float(temperature(self.predictor(trainer)))
                judged = replace(judged, alone=best_alone(found.members, found.targets, own))
            broadcast_buffers(trainer.model)
            model, optimizer = unwrap(trainer.model).state_dict(), trainer.optimizer.state_dict()
            self._kept = _Kept(trainer.step, judged, copy.deepcopy(model), copy.deepcopy(optimizer))
            if self._lowest is None or judged.loss < float(self._lowest.mean()):
                self._lowest = judged.losses
        if math.isfinite(judged.loss):  # what is looked up later is what was judged
            trainer.evaluated[self.held_out] = Evaluation(judged.scores, judged.mean, judged.targets, 0)
        self.next_check = math.ceil(trainer.step * self.settings.growth)
        self._look(trainer, checked=True)
        self._full_was_checked = self._full(trainer)
        return {metrics.COURSE_HELD_OUT: judged.loss, metrics.COURSE_KEPT_STEP: float(self.kept_step)}

    def turns(self, trainer: Trainer) -> bool:
        """Say whether the trunk ends after this step."""
        if self.cooling or self._kept is None or trainer.step >= trainer.num_steps:
            return False
        return trainer.step >= self._stop(trainer) or self._full(trainer)

    def turn(self, trainer: Trainer) -> None:
        """End the trunk: go back to the kept check, and let the rate fall from there."""
        assert self._kept is not None
        self._cut_by_budget = trainer.num_steps < self.most and self._full(trainer)
        self.cooling, self.ended_at = True, trainer.step
        unwrap(trainer.model).load_state_dict(self._kept.model)
        trainer.optimizer.load_state_dict(self._kept.optimizer)
        trainer.num_steps = trainer.step + self._cooldown_steps()
        if self.everything is not None:
            trainer.go_on_with(self.everything)

    def finish(self, trainer: Trainer) -> None:
        """Give the model, once it is trained, the temperature that was fitted at the kept check."""
        found = rho_hyperparameters(unwrap(self.predictor(trainer))).get("temperature")
        if found is not None and self._kept is not None and self._kept.judged.temperature is not None:
            found.set(self._kept.judged.temperature)

    def alone(self) -> Alone | None:
        """Return which member of an ensemble was best by itself at the kept check; None for one network."""
        return self._kept.judged.alone if self._kept else None

    def held_out_evaluation(self) -> Evaluation:
        """Return the evaluation of the held-out split at the kept check, by weights that had not seen it, scaled."""
        assert self._kept is not None
        judged = self._kept.judged
        return Evaluation(judged.scores, judged.mean, judged.targets, 0)

    def describe(self, trainer: Trainer) -> str:
        """Return in words what was decided so far."""
        if self._kept is None:
            return f"first check at step {self.next_check:,}"
        if self.cooling:
            return f"best at step {self.kept_step:,}; cooling down to step {trainer.num_steps:,}"
        stop = self._stop(trainer)
        most = f"at most {trainer.num_steps:,}"
        return f"best at step {self.kept_step:,}; stops at {stop:,} if no check is as good; {most}"

    def reason(self) -> str:
        """Return in words why training ended where it did; empty before that is decided."""
        if not self.cooling:
            return ""
        data = ", on all data" if self.everything is not None else ""
        room = f"the budget of {self.budget} paid for no more" if self._cut_by_budget else "there was no room for more"
        might = ", which might have been better" if self.kept_step == self.ended_at else ""
        more = f"; {room}{might}" if might or self._cut_by_budget else ""
        return (
            f"the held-out loss was best at step {self.kept_step:,} of {self.ended_at:,}; from there the learning rate "
            f"fell to 0 in {self._cooldown_steps():,} steps{data}{more}"
        )

    def state_dict(self) -> dict[str, Any]:
        """Return all that continues the course exactly."""
        assert self.average is not None
        kept = self._kept
        return {
            "average": self.average.state_dict(),
            "cooling": self.cooling,
            "ended_at": self.ended_at,
            "next_check": self.next_check,
            "most": self.most,
            "lowest": self._lowest,
            "pace": None if self._pace is None else vars(self._pace),
            "cut_by_budget": self._cut_by_budget,
            "kept": None if kept is None else {**vars(kept), "judged": _plain(kept.judged)},
        }

    def load_state_dict(self, trainer: Trainer, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned."""
        self.average = averaged(trainer.model, self.settings.power)
        self.average.load_state_dict(state["average"])
        self.cooling, self.ended_at, self.next_check = state["cooling"], state["ended_at"], state["next_check"]
        self.most, self._cut_by_budget = state["most"], state["cut_by_budget"]
        found = None if state["pace"] is None else Pace(**state["pace"])
        # that of another unit says nothing
        self._pace = found if found and self.budget and found.unit == self.budget.unit else None
        self._lowest, kept = state["lowest"], state["kept"]
        self._kept = None if kept is None else _Kept(**kept | {"judged": _restored(kept["judged"])})
        if not self.cooling and self._kept is not None and trainer.step + self._cooldown_steps() > trainer.num_steps:
            raise UserError(
                f"the checkpoint is of step {trainer.step}, and its cooldown takes {self._cooldown_steps()} more, "
                f"beyond the {trainer.num_steps} steps of this run; give more"
            )
        if self.cooling:
            if trainer.num_steps > state["most"]:
                raise UserError(
                    f"this training has found its length, {self.ended_at + self._cooldown_steps()} steps, and ends "
                    "there; start a new one with more --epochs for a longer one"
                )
            trainer.num_steps = self.ended_at + self._cooldown_steps()
            if self.everything is not None:
                trainer.go_on_with(self.everything, since=self.ended_at)

    def _look(self, trainer: Trainer, checked: bool = False) -> None:
        """See what the run cost until now, a check just made included, and how far the budget reaches."""
        if self.budget is None:
            return
        budget, before = self.budget, self._pace
        spent, on_checks = budget.spent(trainer), 0.0 if before is None else before.on_checks
        a_check = budget.of_a_check(trainer, self.held_out) if before is None else before.a_check
        if checked:
            a_check = spent - self._before_check
            on_checks += a_check
        a_step = (spent - on_checks) / trainer.step + budget.of_rho(trainer)
        self._pace = Pace(budget.unit, trainer.step, a_step, on_checks, a_check)
        self._bound(trainer)

    def _bound(self, trainer: Trainer) -> None:
        """Take no more steps than the budget pays for, and always as many as a cooldown from here takes.

        Where no check was kept, as of a run that diverged, there is none.
        """
        if self.budget is None or self._pace is None:
            return
        found = self._pace.affordable(self.budget.amount, self.next_check, self.settings.growth)
        room = 1 if self._kept is None else self._cooldown_of(trainer.step)
        trainer.num_steps = min(self.most, max(agreed(found, trainer.device), trainer.step + room))

    def _warmup_steps(self, trainer: Trainer) -> int:
        return round(min(self.settings.warmup * _epoch(trainer), _WARMUP_SHARE * trainer.num_steps))

    def _stop(self, trainer: Trainer) -> int:
        """Return the step at which the trunk ends if no check is kept until then."""
        given = self.settings
        return math.ceil(max(given.overrun * self.kept_step, given.least * _epoch(trainer), float(given.least_steps)))

    def _cooldown_steps(self) -> int:
        return self._cooldown_of(self.kept_step)

    def _cooldown_of(self, step: int) -> int:
        return max(1, int(self.settings.cooldown * step))

    def _full(self, trainer: Trainer) -> bool:
        """Say whether a longer trunk would leave no room for its cooldown."""
        following = trainer.step + 1
        return following + self._cooldown_of(following) > trainer.num_steps


def _plain(judged: _Judged) -> dict[str, Any]:
    """Return plain values and tensors, as a checkpoint holds them."""
    return {**vars(judged), "alone": None if judged.alone is None else dict(vars(judged.alone))}


def _restored(state: Mapping[str, Any]) -> _Judged:
    return _Judged(**{**state, "alone": None if state["alone"] is None else Alone(**state["alone"])})


def _epoch(trainer: Trainer) -> int:
    """Return the steps in which each network passes over the training split once."""
    return len(trainer.train) * int(getattr(unwrap(trainer.model), "shares", 1))


def _worse(losses: Tensor, lowest: Tensor) -> bool:
    """Say whether losses are larger on average, by more than the standard error of the difference."""
    difference = losses - lowest
    error = float(difference.std()) / math.sqrt(len(difference)) if len(difference) > 1 else 0.0
    return float(difference.mean()) > error


def _judged(loss: Loss, model: nn.Module, found: Evaluation) -> _Judged:
    """Judge predictions on the held-out split after temperature scaling on it.

    The temperature of a regression is the standard deviation of an observation.
    """
    mean, targets = found.mean, found.targets
    if not bool(mean.isfinite().all()):
        return _Judged(torch.tensor([math.inf], dtype=torch.float64), None, found.scores, mean, targets)
    if isinstance(loss, Classification) and mean.ndim == 2:
        logs = calibration.log_probabilities(mean)
        factor = calibration.fit_temperature(logs, targets, prior=calibration.TEMPERATURE_PRIOR)
        mean = calibration.apply_temperature(logs, factor)
        losses = calibration.example_scores(mean, targets)["nll"]
        scores = calibration.score(mean, targets).as_dict()
        return _Judged(losses, float(temperature(model)) * factor, scores, mean, targets)
    if isinstance(loss, GaussianRegression):
        losses = (mean.double() - targets.double().reshape(mean.shape)).square().flatten(1).mean(1)
        rmse = math.sqrt(float(losses.mean()))
        deviation = calibration.fit_deviation(rmse, mean.numel(), calibration.TEMPERATURE_PRIOR)
        nll = mean[0].numel() * (math.log(deviation) + 0.5 * (rmse / deviation) ** 2 + 0.5 * math.log(2 * math.pi))
        return _Judged(losses, deviation, {"nll": nll, "rmse": rmse}, mean, targets)
    losses = torch.tensor([found.scores["nll"]], dtype=torch.float64).nan_to_num(math.inf)
    return _Judged(losses, None, found.scores, mean, targets)
