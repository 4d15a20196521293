"""The training loop: plain PyTorch, the same in one process, under torchrun and in a Ray Train worker."""

from __future__ import annotations

import math
import time
from collections.abc import Mapping, Sequence
from contextlib import nullcontext
from typing import Any, cast

import torch
import torch.distributed as dist
from torch import Tensor, nn

from crossreg.batches import Batches
from crossreg.core import metrics
from crossreg.core.calling import main_output
from crossreg.core.distributed import broadcast_buffers, data_parallel, rank, world_size
from crossreg.core.errors import UserError
from crossreg.core.modules import keep_evaluation_modes, train_mode, unwrap
from crossreg.core.random import derive_seed, rng_state, seed_device, set_rng_state
from crossreg.losses import Loss, as_loss
from crossreg.models.ensemble import Ensemble, of_members
from crossreg.prediction.evaluation import Evaluation, EvaluationPlan, evaluate
from crossreg.regularizer import CrossRegularizer, RhoUpdate
from crossreg.regularizers.base import RhoModule, read_all
from crossreg.regularizers.levels import levelled_weights
from crossreg.regularizers.penalties import training_loss
from crossreg.training.callback import Callback, Stop
from crossreg.training.closure import step_with_closure
from crossreg.training.compute import REPORT, Cost, Ledger, measure_flops
from crossreg.training.course import Course
from crossreg.training.unused import unused_parameters

__all__ = ["Trainer"]


class Trainer:
    """Trains theta on one split and rho on another, evaluates, and can be stopped and continued exactly.

    Args:
        model: on its device; wrapped for data parallelism here.
        loss: see `crossreg.losses`.
        optimizer: of theta, e.g. `AdamW(model.parameters(), ...)`.
        closure: the optimizer evaluates the gradient again within its step, as SAM and L-BFGS do: its step is given a
            closure for that, called after a first pass; see `crossreg.training.closure`.
        train: batches of the training split.
        regularizer: None trains without learned regularization.
        scheduler: learning-rate schedule, stepped after every theta step.
        epochs: passes over the training split; or give `steps`.
        steps: theta steps in all.
        evaluation: on what, when and with how many draws; None evaluates nothing.
        log_every: theta steps between `train/loss` metrics, each the mean since the last.
        callbacks: see `Callback`.
        autocast: dtype of mixed precision (bfloat16 or float16), or None.
        seed: fixes noise and dropout (of this rank), evaluation draws; the batches carry their own.
        course: decides how long to train, within the steps given, sets the learning rate, and chooses when to
            evaluate; it takes no scheduler.

    Raises:
        UserError: neither or both of epochs and steps, or fewer than one; a closure with float16; a course with a
            scheduler, or without its split to judge by.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | nn.Module | str,
        optimizer: torch.optim.Optimizer,
        train: Batches,
        *,
        regularizer: CrossRegularizer | None = None,
        scheduler: torch.optim.lr_scheduler.LRScheduler | None = None,
        closure: bool = False,
        epochs: int | None = None,
        steps: int | None = None,
        evaluation: EvaluationPlan | None = None,
        log_every: int = 10,
        callbacks: Sequence[Callback] = (),
        autocast: torch.dtype | None = None,
        seed: int = 0,
        course: Course | None = None,
    ) -> None:
        if (epochs is None) == (steps is None):
            raise UserError(f"epochs is {epochs} and steps is {steps}; give one of them")
        self.num_steps = steps if steps is not None else (epochs or 0) * len(train)
        if self.num_steps < 1:
            raise UserError(f"training would take {self.num_steps} steps; it must take at least 1")
        if closure and autocast == torch.float16:
            raise UserError(
                "autocast is float16, whose gradients are scaled, and the optimizer evaluates the gradient more than "
                "once, which scaling does not allow; use bfloat16 or float32"
            )
        if course is not None and scheduler is not None:
            raise UserError("a course sets the learning rate itself; leave out the scheduler")
        if course is not None and course.held_out not in (evaluation.splits if evaluation else {}):
            raise UserError(f"a course judges by the split {course.held_out!r}, which the evaluation does not have")
        self.model, self.loss, self.optimizer, self.train = model, as_loss(loss), optimizer, train
        self.course, self.batches, self._since = course, train, 0
        if course is not None:
            course.take_rates(optimizer)
        self.regularizer, self.scheduler, self.closure = regularizer, scheduler, closure
        self.evaluation, self.log_every = evaluation or EvaluationPlan(), log_every
        self.callbacks, self.autocast, self.seed = list(callbacks), autocast, seed
        self.device = next(model.parameters()).device
        keep_evaluation_modes(model, never=RhoModule)
        self.step = 0
        self.latest: dict[str, float] = {}
        self.evaluated: dict[str, Evaluation] = {}
        self.held_out: list[float] = []
        self.stopped: Stop | None = None
        self.ledger: Ledger | None = None
        self._window = torch.zeros(3, dtype=torch.float64, device=self.device)  # loss, correct, examples
        self._scaler = torch.amp.GradScaler(self.device.type, enabled=autocast == torch.float16)
        self._resumed: dict[str, Any] | None = None
        self._updated: RhoUpdate | None = None
        self._clock = 0.0
        self._wrapped: nn.Module | None = None

    @property
    def ended(self) -> bool:
        """Whether this was the last step: of the run, or because a callback stopped it."""
        return self.step == self.num_steps or self.stopped is not None

    @property
    def epoch(self) -> float:
        """Passes over the training split so far."""
        return self.step / len(self.train)

    def fit(self) -> dict[str, float]:
        """Train to the last step, or until a callback stops it, and return the latest value of every metric."""
        self.start()
        self.advance(self.num_steps)
        interrupted = self.stopped is not None and not self.stopped.finished
        return self.latest if interrupted else self.finish()

    def start(self) -> None:
        """Get ready for the first step of a fresh or restored run; `fit` does this itself."""
        self._wrapped = data_parallel(self.model, self._has_unused_parameters())
        self._prepare()
        self._clock = time.perf_counter()
        if self.course is not None:
            self.course.begin(self)
        for callback in self.callbacks:
            callback.on_start(self)

    def advance(self, until: int) -> None:
        """Train up to a step, after `start`; less far if a callback stops it."""
        assert self._wrapped is not None
        self._clock = time.perf_counter()
        while self.step < min(until, self.num_steps) and self.stopped is None:
            batches = self.batches
            epoch, batch = divmod(self.step - self._since, len(batches))
            batches.set_epoch(epoch)
            for x, y in batches.starting_at(batch):
                if self.course is not None:
                    self.course.set_rate(self)
                self._theta_step(self._wrapped, x, y)
                self._rho_step()
                self.step += 1
                self._after_step()
                # a course may have shortened the run, or gone on with other data
                if self.step >= min(until, self.num_steps) or self.stopped is not None or self.batches is not batches:
                    break
        self._count_time()

    def go_on_with(self, batches: Batches, since: int | None = None) -> None:
        """Take other training data from the next step on.

        Args:
            batches: begun with their first epoch.
            since: the step after which they came, of a run that is restored; None for now.
        """
        self.batches, self._since = batches, self.step if since is None else since

    def finish(self) -> dict[str, float]:
        """End the run after its last step and return the latest value of every metric."""
        if not self.evaluated:  # resumed after the last step
            self.latest |= self._evaluate(final=True)
        for callback in self.callbacks:
            callback.on_end(self)
        return self.latest

    def cost(self) -> Cost:
        """Return what the run cost until now, after `start`."""
        assert self.ledger is not None
        self._count_time()
        return self.ledger.cost

    def state_dict(self) -> dict[str, Any]:
        """Return all that continues the run exactly, as tensors and plain values; call it on every rank.

        Holds the random states of all ranks, so a run continues exactly on the same number of workers; on another
        number each rank starts a stream of its own.
        """
        own = {"rng": rng_state(), "window": self._window.cpu()}
        ranks: list[Any] = [own]
        if world_size() > 1:
            ranks = [None] * world_size()
            dist.all_gather_object(ranks, own)
            broadcast_buffers(self.model)
        assert self.ledger is not None
        self._count_time()
        return {
            "step": self.step,
            "model": unwrap(self.model).state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "scheduler": self.scheduler.state_dict() if self.scheduler else None,
            "regularizer": self.regularizer.state_dict() if self.regularizer else None,
            "scaler": self._scaler.state_dict(),
            "latest": dict(self.latest),
            "held_out": list(self.held_out),
            "examples": dict(self.ledger.examples),
            "backward": dict(self.ledger.backward),
            "worker_seconds": self.ledger.worker_seconds,
            "seconds": self.ledger.seconds,
            "course": self.course.state_dict() if self.course else None,
            "ranks": ranks,
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restore what `state_dict` returned, before `fit`."""
        unwrap(self.model).load_state_dict(state["model"])
        self.optimizer.load_state_dict(state["optimizer"])
        if self.scheduler:
            self.scheduler.load_state_dict(state["scheduler"])
        if self.regularizer:
            self.regularizer.load_state_dict(state["regularizer"])
        self._scaler.load_state_dict(state["scaler"])
        if state["step"] > self.num_steps:
            raise UserError(
                f"the checkpoint is of step {state['step']}, beyond the {self.num_steps} steps of this run; give more"
            )
        self.step, self.latest, self.held_out = state["step"], dict(state["latest"]), list(state["held_out"])
        if self.course is not None:
            self.course.load_state_dict(self, state["course"])
        self._resumed = dict(state)

    def _has_unused_parameters(self) -> bool:
        """Say whether ranks would wait for gradients that never come."""
        if world_size() == 1:
            return False
        x, y = next(self.train.starting_at(0))
        return bool(unused_parameters(self.model, self.loss, x, y))

    def _prepare(self) -> None:
        """Start ledger and random streams; last before the first step, since set-up itself may draw."""
        x, y = next(self.train.starting_at(0))
        samples = self.regularizer.samples if self.regularizer else 1
        estimator, rho = (self.regularizer.estimator, list(self.regularizer.rho)) if self.regularizer else (None, [])
        flops = measure_flops(self.model, self.loss, x, y, samples, estimator, rho)
        self.ledger = Ledger(flops)
        seed_device(self.device, derive_seed(self.seed, "theta", self.step, rank()))
        if self._resumed is None:
            return
        self.ledger.examples = dict(self._resumed["examples"])
        self.ledger.backward = dict(self._resumed["backward"])
        self.ledger.worker_seconds, self.ledger.seconds = self._resumed["worker_seconds"], self._resumed["seconds"]
        ranks = self._resumed["ranks"]
        if len(ranks) == world_size():
            set_rng_state(ranks[rank()]["rng"])
            self._window.copy_(ranks[rank()]["window"])
        elif rank() == 0:
            self._window.copy_(torch.stack([state["window"] for state in ranks]).sum(0))
        self._resumed = None

    def _theta_step(self, wrapped: nn.Module, x: Tensor, y: Tensor) -> None:
        """Minimize the training loss of one noise draw; sigma is a constant here."""
        train_mode(wrapped)

        def gradient() -> tuple[Tensor, Tensor]:
            with self._autocast():
                output = wrapped(x)
                loss = training_loss(self.model, self.loss, output, y)
            self._scaler.scale(loss).backward()
            return output, loss

        if self.closure:
            (output, loss), passes = step_with_closure(self.optimizer, self.model, self.device, gradient)
        else:
            (output, loss), passes = gradient(), 1
            self._scaler.step(self.optimizer)
            self._scaler.update()
        self.optimizer.zero_grad(set_to_none=True)
        if self.scheduler:
            self.scheduler.step()
        with torch.no_grad():
            apart = of_members(self.model, output)
            output = main_output(output) if apart is None else cast(Ensemble, unwrap(self.model)).average(apart)
            classes = y.ndim == 1 and not y.is_floating_point() and output.ndim == 2
            correct = (output.argmax(1) == y).sum() if classes else torch.zeros((), device=self.device)
            rows = torch.tensor(len(y), device=self.device)
            self._window += torch.stack([loss.detach() * rows, correct, rows])
        assert self.ledger is not None
        examples = passes * min(self.train.batch_size, self.train.num_examples)
        self.ledger.add("theta", examples, backward=examples)

    def _rho_step(self) -> None:
        if self.regularizer is None or (self.course is not None and self.course.merged):
            for level, weight in levelled_weights(self.model).values():  # which theta's step is not to change
                level.restore(weight)
            return
        with self._autocast():
            update = self.regularizer.step()
        if update is None:
            return
        assert self.ledger is not None
        assert self.regularizer is not None
        forward, backward = self.regularizer.estimator.passes(self.regularizer.samples)
        self.ledger.add("rho", forward * update.examples, backward=backward * update.examples)
        self._updated = update

    def _after_step(self) -> None:
        """Say what happened: everything here carries the number of the step just done."""
        values: dict[str, float] = {}
        update, self._updated = self._updated, None
        if update is not None:
            values |= {"reg/loss": update.loss, **self._learned()}
        last, due = self.step == self.num_steps, self._due()
        if last and self.course is not None:
            self.course.finish(self)
        evaluated = last or due
        if evaluated:
            values |= self._evaluate(final=last and self.evaluation.whole_at_end)
            self.held_out.append(_score(values.get("reg/nll", math.nan)))
        if due and self.course is not None:
            values |= self.course.check(self)
        self.latest |= values
        self.stopped = None if last else next((stop for c in self.callbacks if (stop := c.should_stop(self))), None)
        early = self.stopped is not None and self.stopped.finished
        if early:
            values |= self._evaluate(final=True)
        if self.step % self.log_every == 0 or last or early:  # an interrupted run goes on with its window
            values |= self._window_metrics()
        if evaluated:
            values |= self._spent()
        if self.course is not None and self.course.turns(self):
            self.course.turn(self)
        self._tell(values, update)

    def _due(self) -> bool:
        """Say whether the splits are to be evaluated after this step."""
        every = self.evaluation.every
        return self.course.after_step(self) if self.course else bool(every and self.step % every == 0)

    def _tell(self, values: dict[str, float], update: RhoUpdate | None) -> None:
        if values:
            self.latest |= values
            for callback in self.callbacks:
                callback.on_metrics(self, values)
        if update is not None:
            for callback in self.callbacks:
                callback.on_rho_update(self, update)
        for callback in self.callbacks:
            callback.on_step(self)

    def _learned(self) -> dict[str, float]:
        """Return the present value of everything that is learned."""
        assert self.regularizer is not None
        found = read_all(self.regularizer.hyperparameters)
        return {metrics.hyperparameter(name): value for name, value in found.items()}

    def _spent(self) -> dict[str, float]:
        assert self.ledger is not None
        self._count_time()
        return self.ledger.as_metrics()

    def _window_metrics(self) -> dict[str, float]:
        window = self._window.clone()
        if world_size() > 1:
            dist.all_reduce(window)
        self._window.zero_()
        loss, correct, examples = window.tolist()
        values = {
            "train/loss": loss / max(examples, 1),
            metrics.EPOCH: self.epoch,
            metrics.LEARNING_RATE: self.optimizer.param_groups[0]["lr"],
        }
        return values if self.train.y.is_floating_point() else {**values, "train/accuracy": correct / max(examples, 1)}

    def _evaluate(self, final: bool) -> dict[str, float]:
        """Evaluate every split; the final one is of whole splits, with more draws."""
        values: dict[str, float] = {}
        plan = self.evaluation
        samples = plan.final_samples if final else plan.samples
        assert self.ledger is not None
        model = self.model if self.course is None else self.course.predictor(self)
        for split, whole in plan.splits.items():
            if self.course is not None and self.course.merged and split == self.course.held_out:
                # it is trained on by now, and says nothing any more: what counts is the last time that it did
                self.evaluated[split] = self.course.held_out_evaluation()
                values |= metrics.scores(split, self.evaluated[split].scores)
                continue
            batches = whole if final else plan.interim.get(split, whole)
            counts = split in plan.selection
            self._count_time()
            with self._autocast():
                result = evaluate(model, self.loss, batches, samples, self.seed, dropout=plan.dropout)
            self.evaluated[split] = result
            self.ledger.add("selection" if counts else REPORT, result.passes)
            self._count_time(counts)
            values |= metrics.scores(split, result.scores)
        return values

    def _count_time(self, counts: bool = True) -> None:
        """Add the time since the last call to the ledger, or pass over it."""
        now = time.perf_counter()
        assert self.ledger is not None
        if counts:
            self.ledger.worker_seconds += (now - self._clock) * world_size()
            self.ledger.seconds += now - self._clock
            self.ledger.measure_memory(self.device)
        self._clock = now

    def _autocast(self) -> Any:
        return nullcontext() if self.autocast is None else torch.autocast(self.device.type, self.autocast)


def _score(nll: float) -> float:
    return nll if math.isfinite(nll) else math.inf
