"""The alternating step: every r-th call, one gradient step of rho on held-out data.

    theta <- theta - eta_theta  d L_train(theta, rho) / d theta      every step, the user's own loop
    rho   <- rho   - eta_rho    d L_reg(theta, rho)   / d rho        every r-th step, here

Source: cross-regularization (arXiv 2506.19755).
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sized
from dataclasses import dataclass
from itertools import islice
from typing import Any

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.utils.data import DistributedSampler

from crossreg.core.calling import inputs_and_target
from crossreg.core.distributed import rank, world_size
from crossreg.core.errors import UserError, nearest
from crossreg.core.modules import unwrap
from crossreg.core.random import derive_seed, seed_device
from crossreg.estimators import Direct, Estimator
from crossreg.losses import Loss, as_loss
from crossreg.regularizers.base import Hyperparameter, rho_hyperparameters, rho_parameters
from crossreg.regularizers.levels import levelled_weights
from crossreg.regularizers.noise import Draw

__all__ = ["CrossRegularizer", "RhoUpdate"]


@dataclass(frozen=True)
class RhoUpdate:
    """What one rho step did.

    Attributes:
        index: number of the update, from 1.
        loss: loss of the averaged prediction on the regularization batch, before the step (of the noise-free one with
            the estimator `T1T2`).
        gradients: gradient of every rho (in rho, not in sigma) by parameter name.
        examples: regularization examples of the batch, over all ranks.
        applied: False where the loss or a gradient was not finite and rho was left as it was.
        seconds: wall-clock time that it took, waiting for the slowest rank included.
    """

    index: int
    loss: float
    gradients: dict[str, Tensor]
    examples: int
    applied: bool
    seconds: float


class CrossRegularizer:
    """Owns rho: its optimizer, the update interval r, the number of noise draws K and the gradient estimator.

    Call `step()` after every theta step. In a distributed run construct it on every rank: rho starts equal to
    rank 0's, every rank differentiates its share of the regularization batch with noise of its own, and the gradient
    is averaged in one all-reduce, so rho stays bit-identical.

    Args:
        model: a model that went through `inject_noise`; plain, or wrapped by DDP or `torch.compile`. The rho step
            goes round the wrappers.
        loss: a `Loss`, or what PyTorch has one in: `nn.CrossEntropyLoss(...)`, `F.mse_loss`; see `as_loss`.
        reg_loader: iterable of batches of held-out data that theta never trains on: `(x, y)`, `(x, mask, y)`, or a
            dictionary with the target as "labels", "label", "targets", "target" or "y"; started anew when it ends. In a
            distributed run every rank takes its rows of each batch, unless the loader is sharded already (a
            `DistributedSampler`, or an attribute `sharded` that is true). A loader that shuffles needs a generator
            seeded alike on all ranks, or ranks take their rows of different batches.
        interval: theta steps between rho steps, r >= 1.
        samples: noise draws averaged in a rho step, K >= 1; below 3 the gradient is biased (see the docs).
        lr: step size of rho, in relative change of sigma per update.
        learn: names of the hyperparameters that are learned ("noise", "noise/00_norm1", "l2"); the others stay where
            they are. None learns all that the model has.
        estimator: how the gradient is estimated; the paper's `Direct()` by default, or one that follows theta:
            `Implicit`, `Unrolled`, `T1T2`.
        seed: fixes the noise of the rho steps.

    Raises:
        UserError: a model without rho, rho that the estimator cannot learn, an empty loader, or an argument out of
            range.
    """

    def __init__(
        self,
        model: nn.Module,
        loss: Loss | nn.Module | Callable[..., Tensor] | str,
        reg_loader: Iterable[Any],
        interval: int = 30,
        samples: int = 3,
        *,
        lr: float = 0.1,
        learn: Collection[str] | None = None,
        estimator: Estimator | None = None,
        seed: int = 0,
    ) -> None:
        for name, value in (("interval", interval), ("samples", samples)):
            if not isinstance(value, int) or value < 1:
                raise UserError(f"{name} is {value!r}; it must be an integer of at least 1")
        if not lr > 0:
            raise UserError(f"lr is {lr!r}; it must be positive")
        self.model = unwrap(model)
        self.estimator = estimator or Direct()
        self.hyperparameters = _learned(self.model, learn, self.estimator)
        self.loss = as_loss(loss)
        self.go_on_with(reg_loader)
        self.interval, self.samples, self.seed = interval, samples, seed
        chosen = {id(one.rho) for one in self.hyperparameters.values()}
        named = {name: rho for name, rho in rho_parameters(self.model).items() if id(rho) in chosen}
        self.rho = named
        self._levels = list(levelled_weights(self.model).values())
        self.optimizer = rho_optimizer(named.values(), lr)
        self.calls = 0
        self.updates = 0
        self._scaler: torch.amp.GradScaler | None = None
        if world_size() > 1:
            for parameter in named.values():
                dist.broadcast(parameter.data, src=0)
            _separate_noise_of_ranks(next(iter(named.values())).device)

    @property
    def theta(self) -> list[nn.Parameter]:
        """Everything that trains on training data: all parameters but rho that require gradients."""
        rho = {id(parameter) for parameter in rho_parameters(self.model).values()}
        return [p for p in self.model.parameters() if p.requires_grad and id(p) not in rho]

    def step(self) -> RhoUpdate | None:
        """Count one theta step; on every `interval`-th update rho and say what happened, else return None.

        Under `torch.autocast` the rho step runs in its dtype too; float16 gradients are scaled against underflow.
        """
        self.calls += 1
        for level, weight in self._levels:  # theta's step is not to change them
            level.restore(weight)
        return None if self.calls % self.interval else self.update()

    def update(self) -> RhoUpdate:
        """Do one rho step now."""
        started = time.perf_counter()
        self.updates += 1
        parameters = list(self.rho.values())
        inputs, target = self._next_batch(parameters[0].device)
        draws = antithetic_draws(self.samples, self.seed, "rho", self.updates, rank())
        scaler = self._gradient_scaler(target.device)
        # `scale` also sets up a scaler that has not been used yet
        scale = float(scaler.scale(torch.ones((), device=target.device))) if scaler else 1.0
        self.estimator.set_update(self.updates)
        if len(target):
            value, gradients = self.estimator.gradient(self.model, self.loss, inputs, target, parameters, draws, scale)
        else:  # a last batch smaller than the number of ranks: this one has nothing to say, but must not be silent
            value, gradients = torch.zeros((), device=target.device), [torch.zeros_like(p) for p in parameters]
        # one message: the loss, every gradient, and what they are means over, by which ranks are weighted
        one = torch.ones(1, dtype=parameters[0].dtype, device=parameters[0].device)
        size = self.loss.size(target) if len(target) else 0.0
        flat = torch.cat([value.reshape(1).to(one), *(g.reshape(-1) for g in gradients), one]) * size
        flat = torch.cat([flat, one * len(target)])
        if world_size() > 1:
            dist.all_reduce(flat)
        rows, flat = flat[-1], flat[:-2] / flat[-2]
        pieces = flat[1:].split([parameter.numel() for parameter in parameters])
        for parameter, piece in zip(parameters, pieces, strict=True):
            parameter.grad = piece.view_as(parameter).clone()
        finite = bool(flat.isfinite().all())
        if scaler:
            scaler.unscale_(self.optimizer)
            scaler.step(self.optimizer)
            scaler.update()
        elif finite:
            self.optimizer.step()
        for level, weight in self._levels:
            level.fold(weight)
        found = {name: p.grad.detach() for name, p in self.rho.items() if p.grad is not None}
        self.optimizer.zero_grad()
        seconds = time.perf_counter() - started
        return RhoUpdate(self.updates, float(flat[0]), found, int(rows), finite, seconds)

    def go_on_with(self, reg_loader: Iterable[Any]) -> None:
        """Take other held-out data from the next rho step on, as where the distribution shifts.

        A run that is restored is given them before `load_state_dict`.

        Args:
            reg_loader: begun with its first epoch; see the class.

        Raises:
            UserError: an empty loader.
        """
        if isinstance(reg_loader, Sized) and len(reg_loader) == 0:
            raise UserError("reg_loader yields no batch; the regularization split is smaller than one batch")
        self.reg_loader = reg_loader
        self._epoch, self._batch = 0, 0
        self._batches: Iterator[Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        """Return all that continues the rho steps exactly; rho itself is in the model's state dict."""
        return {
            "optimizer": self.optimizer.state_dict(),
            "calls": self.calls,
            "updates": self.updates,
            "epoch": self._epoch,
            "batch": self._batch,
            "seed": self.seed,
            "scaler": self._scaler.state_dict() if self._scaler else None,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        """Restore what `state_dict` returned; the loader is advanced to the batch it had reached.

        A loader is continued exactly if its order depends on its epoch alone (`set_epoch`), as that of
        `crossreg.Batches` and of a `DataLoader` with a `DistributedSampler` or without shuffling does.
        """
        self.optimizer.load_state_dict(state["optimizer"])
        self.calls, self.updates, self.seed = state["calls"], state["updates"], state["seed"]
        self._epoch, self._batch = state["epoch"], state["batch"]
        self._batches = None
        if state["scaler"]:
            scaler = self._gradient_scaler(next(iter(self.rho.values())).device, force=True)
            assert scaler is not None
            scaler.load_state_dict(state["scaler"])

    def _next_batch(self, device: torch.device) -> tuple[Any, Tensor]:
        """Return this rank's rows of the next regularization batch."""
        if self._batches is None:
            self._batches = islice(self._iterate(), self._batch, None)
        batch = next(self._batches, None)
        if batch is None:
            self._epoch, self._batch = self._epoch + 1, 0
            self._batches = self._iterate()
            batch = next(self._batches, None)
            if batch is None:
                raise UserError("reg_loader yields no batch; the regularization split is smaller than one batch")
        self._batch += 1
        inputs, target = inputs_and_target(batch)
        sampler = getattr(self.reg_loader, "sampler", None)
        sharded = getattr(self.reg_loader, "sharded", False) or isinstance(sampler, DistributedSampler)
        world = 1 if sharded else world_size()
        rows = slice(rank() * len(target) // world, (rank() + 1) * len(target) // world) if world > 1 else slice(None)
        return _to(inputs, device, rows), target[rows].to(device)

    def _iterate(self) -> Iterator[Any]:
        for part in (self.reg_loader, getattr(self.reg_loader, "sampler", None)):
            set_epoch = getattr(part, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(self._epoch)
        return iter(self.reg_loader)

    def _gradient_scaler(self, device: torch.device, force: bool = False) -> torch.amp.GradScaler | None:
        half = torch.is_autocast_enabled(device.type) and torch.get_autocast_dtype(device.type) == torch.float16
        if not (half or force):
            return None
        if self._scaler is None:
            self._scaler = torch.amp.GradScaler(device.type, init_scale=2.0**12)
        return self._scaler


def _learned(model: nn.Module, names: Collection[str] | None, estimator: Estimator) -> dict[str, Hyperparameter]:
    """Return what is learned, by name; refuse nothing, unknown names, and what the estimator would never move."""
    found = rho_hyperparameters(model)
    if not found:
        raise UserError("the model has nothing to learn; call inject_noise(model), or penalize(model, ...), first")
    known = {*found, *(one.base for one in found.values())}
    for name in names or ():
        if name not in known:
            raise UserError(f"the model has no {name!r} to learn{nearest(name, known)}; it has {', '.join(found)}")
    chosen = {name: one for name, one in found.items() if names is None or name in names or one.base in names}
    if not chosen:
        raise UserError(f"learn is empty; the model has {', '.join(found)}")
    stuck = [name for name, one in chosen.items() if not one.direct]
    if stuck and not estimator.needs_training_data:
        raise UserError(
            f"the held-out loss does not depend on {', '.join(stuck)} with the weights held fixed, so the direct "
            "gradient would learn nothing; use estimator=Implicit(train) or Unrolled(train)"
        )
    return chosen


def rho_optimizer(parameters: Iterable[nn.Parameter], lr: float) -> torch.optim.Optimizer:
    """Return the optimizer of rho: Adam with a short memory of the gradient's size; see `docs/method/noise.md`."""
    return torch.optim.Adam(parameters, lr=lr, betas=(0.9, 0.9))


def antithetic_draws(samples: int, *key: int | str) -> list[Draw]:
    """Return K draws in pairs of opposite sign; the last is alone where K is odd.

    To first order a draw moves the loss by sigma times something of zero mean, which hides the effect that counts
    (of second order) while sigma is small. In a pair the first order cancels; see `docs/method/noise.md`.
    """
    return [Draw(derive_seed(*key, k // 2), -1.0 if k % 2 else 1.0) for k in range(samples)]


def _to(inputs: Any, device: torch.device, rows: slice = slice(None)) -> Any:
    if isinstance(inputs, Tensor):
        return inputs[rows].to(device)
    if isinstance(inputs, tuple) and hasattr(inputs, "_fields"):
        return type(inputs)(*(_to(value, device, rows) for value in inputs))
    if isinstance(inputs, Mapping):
        return {key: _to(value, device, rows) for key, value in inputs.items()}
    if isinstance(inputs, list | tuple):
        return type(inputs)(_to(value, device, rows) for value in inputs)
    return inputs


def _separate_noise_of_ranks(device: torch.device) -> None:
    """Give ranks that were seeded alike different noise: correlated draws would average out less."""
    seeds: list[Any] = [None] * world_size()
    dist.all_gather_object(seeds, torch.initial_seed())
    if len(set(seeds)) < len(seeds):
        seed_device(device, derive_seed(seeds[0], "rank", rank()))
