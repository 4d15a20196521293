"""The four ways in which cross-regularization fails, and a learned optimizer, detected while it trains, in words.

Source of the signatures: arXiv 2506.19755. The thresholds are ours and are kept here, by name.
"""

from __future__ import annotations

import logging
import math
from collections import deque
from dataclasses import dataclass
from typing import Literal

from crossreg.optimizers import LearnedOptimizer
from crossreg.regularizer import RhoUpdate
from crossreg.regularizers.base import Hyperparameter, read_all
from crossreg.training.callback import Callback
from crossreg.training.trainer import Trainer

__all__ = ["Diagnosis", "Diagnostics"]

Signature = Literal["collapse", "divergence", "no adaptation", "poor calibration", "failed optimizer"]

_log = logging.getLogger(__name__)

# a scale this small changes no activation that matters
SMALL_SIGMA = 1e-3
# rho updates after which sigma should have moved, and the relative move that counts
PATIENCE, SMALL_MOVE = 20, 0.2
# updates in a row without a finite gradient; mixed precision skips one now and then
TOLERATED_SKIPS = 3
# how far held-out loss must lie above training loss, in nats, before regularization is plainly called for
OPEN_GAP = 0.1
# training loss this many times that of guessing, or of the best window so far where that is larger, is divergence
DIVERGED = 3.0
# test NLL above regularization NLL by this factor and this many nats: the two splits are not alike
SHIFT_FACTOR, SHIFT_NATS = 1.5, 0.2
RHO_LR = "learning rate of rho (rho.lr; lr of CrossRegularizer)"


@dataclass(frozen=True)
class Diagnosis:
    """A failure signature that was seen.

    Attributes:
        signature: which of them.
        step: theta step at which it was seen.
        seen: what was measured.
        cause: the likely reason.
        remedy: what to change.
    """

    signature: Signature
    step: int
    seen: str
    cause: str
    remedy: str

    def __str__(self) -> str:
        """Return the diagnosis as one line for people."""
        return f"{self.signature} at step {self.step}: {self.seen}. Likely cause: {self.cause}. Try: {self.remedy}."


class Diagnostics(Callback):
    """Watches a training with learned noise, and logs each failure signature once, as a warning.

    Attributes:
        found: the diagnoses so far.
    """

    def __init__(self) -> None:
        self.found: list[Diagnosis] = []
        self._first_sigma: dict[str, float] = {}
        self._guessing = 1.0
        self._best_loss = math.inf
        self._silent = 0
        self._fresh, self._seen = True, 0
        self._skipped = 0
        self._reg_losses: deque[float] = deque(maxlen=PATIENCE)

    def on_start(self, trainer: Trainer) -> None:
        """Remember where sigma starts, and what guessing would cost."""
        self._fresh, self._seen = trainer.step == 0, 0
        if not trainer.train.y.is_floating_point():
            self._guessing = max(math.log(float(trainer.train.y.max()) + 1), 1.0)
        self._first_sigma = read_all(_noise(trainer))

    def on_rho_update(self, trainer: Trainer, update: RhoUpdate) -> None:
        """Look at one rho step: no gradient, a gradient that is not finite, sigma gone or stuck."""
        self._reg_losses.append(update.loss)
        self._seen += 1
        assert trainer.regularizer is not None
        noise = {id(one.rho) for one in _noise(trainer).values()}
        names = [name for name, rho in trainer.regularizer.rho.items() if id(rho) in noise]
        noise_gradients = [update.gradients[name] for name in names]
        self._skipped = 0 if update.applied else self._skipped + 1
        if not update.applied:
            if self._skipped < TOLERATED_SKIPS:
                return
            self._found(
                trainer, "divergence",
                f"the gradient of rho was not finite in {self._skipped} updates in a row, up to number {update.index}",
                "noise so large, or weights so far off, that the model's output overflows",
                "a smaller start of the noise (below 1), a smaller learning rate of rho or theta",
            )  # fmt: skip
            return
        self._silent = self._silent + 1 if names and all(not g.any() for g in noise_gradients) else 0
        if self._silent >= 3:
            self._found(
                trainer, "collapse", "the gradient of every noise scale is exactly zero",
                "the regularization loss does not feel the noise: a forward pass without it (the layers' hooks are "
                "bypassed), or a model that ignores the layers with noise",
                "check that the model calls its normalization layers as modules, and inject_noise(where=...)",
            )  # fmt: skip
        if names and update.index >= PATIENCE and update.index % PATIENCE == 0:
            self._check_sigma(trainer)

    def on_metrics(self, trainer: Trainer, values: dict[str, float]) -> None:
        """Look at the losses: training that blows up, splits that are not alike."""
        loss = values.get("train/loss")
        if loss is not None:
            best = self._best_loss if math.isfinite(self._best_loss) else 0.0
            if not math.isfinite(loss) or loss > DIVERGED * max(best, self._guessing):
                self._found(
                    trainer, "divergence", f"the training loss is {loss:.3g}; guessing costs {self._guessing:.3g}",
                    "initial sigma above 1, a learning rate of rho that is too large, or one of theta",
                    f"noise that starts at 0.1, a smaller {RHO_LR}, a smaller learning rate of theta",
                )  # fmt: skip
            if math.isfinite(loss):
                self._best_loss = min(self._best_loss, loss)
        reg, test = values.get("reg/nll"), values.get("test/nll")
        if reg is not None and test is not None and test > max(SHIFT_FACTOR * reg, reg + SHIFT_NATS):
            self._found(
                trainer, "poor calibration", f"NLL is {test:.3g} on the test split and {reg:.3g} on the reg split",
                "the regularization split is not distributed like the test split, or so small that rho has fitted it",
                "draw the regularization split at random from what the model will meet, or hold out more",
            )  # fmt: skip

    def on_step(self, trainer: Trainer) -> None:
        """Ask a learned optimizer whether it has failed."""
        optimizer = trainer.optimizer
        if isinstance(optimizer, LearnedOptimizer) and optimizer.fallen_back is not None:
            self._found(
                trainer, "failed optimizer", optimizer.why_fallen_back(),
                f"a training unlike those that it was meta-trained on ({optimizer.learned.about.horizon} steps), or a "
                "learning rate that is too large",
                "a smaller learning rate, or --optimizer adamw",
            )  # fmt: skip

    def on_end(self, trainer: Trainer) -> None:
        """Look once more at where sigma ended."""
        if self._first_sigma:
            self._check_sigma(trainer)

    def _check_sigma(self, trainer: Trainer) -> None:
        current = read_all(_noise(trainer))
        gap = self._gap(trainer)
        if max(current.values()) < SMALL_SIGMA and gap > OPEN_GAP:
            self._found(
                trainer, "collapse",
                f"every sigma is below {SMALL_SIGMA:g} while held-out loss lies {gap:.2g} nats above training loss",
                "a learning rate of rho too small to come back, too few noise draws, or a rho step without noise",
                f"noise that starts at 0.1, a larger {RHO_LR}, samples of at least 3",
            )  # fmt: skip
        moved = max(abs(math.log(current[name] / self._first_sigma[name])) for name in current)
        regularizer = trainer.regularizer
        # a resumed run has come from somewhere; it is judged by as many updates as a fresh one
        too_soon = not self._fresh and self._seen < PATIENCE
        if regularizer is None or too_soon or moved > SMALL_MOVE or gap <= OPEN_GAP:
            return
        self._found(
            trainer, "no adaptation",
            f"no sigma moved by more than {moved:.1%} in {regularizer.updates} updates while held-out loss lies "
            f"{gap:.2g} nats above training loss",
            f"updates too rare (every {regularizer.interval} steps), too few noise draws ({regularizer.samples}), or a "
            "learning rate of rho that is too small",
            f"{'a smaller interval, ' if regularizer.interval > 1 else ''}samples of at least 3, a larger {RHO_LR}",
        )  # fmt: skip

    def _gap(self, trainer: Trainer) -> float:
        train = trainer.latest.get("train/loss", math.nan)
        if self._reg_losses:
            return sum(self._reg_losses) / len(self._reg_losses) - train
        return trainer.latest.get("reg/nll", math.nan) - train

    def _found(self, trainer: Trainer, signature: Signature, seen: str, cause: str, remedy: str) -> None:
        if any(diagnosis.signature == signature for diagnosis in self.found):
            return
        self.found.append(Diagnosis(signature, trainer.step, seen, cause, remedy))
        self.report(self.found[-1])

    def report(self, diagnosis: Diagnosis) -> None:
        """Say what was found; override to say it elsewhere than in the log."""
        _log.warning("%s", diagnosis)


def _noise(trainer: Trainer) -> dict[str, Hyperparameter]:
    """Return the noise scales that are learned, by name."""
    learned = trainer.regularizer.hyperparameters if trainer.regularizer else {}
    return {name: one for name, one in learned.items() if one.base == "noise"}
