"""Evaluating a model on a whole split, over all ranks."""

from __future__ import annotations

import math
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crossreg.batches import Batches
from crossreg.core.calling import call, inputs_and_target
from crossreg.core.distributed import broadcast_buffers, gather_rows, rank
from crossreg.core.modules import unwrap
from crossreg.core.random import derive_seed, forked_rng, seed_device
from crossreg.losses import Classification, Loss, MultiLabel
from crossreg.models import Ensemble
from crossreg.prediction import calibration
from crossreg.prediction.predict import num_draws, predict_apart
from crossreg.regularizers.noise import sampling
from crossreg.regularizers.temperature import temperature

__all__ = ["Evaluation", "EvaluationPlan", "evaluate", "num_passes"]


@dataclass(frozen=True)
class EvaluationPlan:
    """What a training is evaluated on, when, and with how many noise draws.

    Attributes:
        splits: batches by split name, e.g. `{"reg": ..., "test": ...}`.
        interim: batches that take a split's place in evaluations during training, where the whole would take long.
        whole_at_end: evaluate whole splits with `final_samples` draws at the last step; off, that is an evaluation like
            those before, and `finish` of a run restored there does it.
        selection: names of splits whose evaluations a choice depends on (a search, early stopping), so that they
            count as compute; the others are for the reader.
        every: theta steps between evaluations; None evaluates at the end only.
        samples: noise draws of an evaluation.
        final_samples: noise draws of the last one.
        dropout: evaluate with dropout on (MC dropout), over the same number of draws; see `crossreg.predict`.
    """

    splits: Mapping[str, Batches] = field(default_factory=dict)
    interim: Mapping[str, Batches] = field(default_factory=dict)
    whole_at_end: bool = True
    selection: Collection[str] = frozenset()
    every: int | None = None
    samples: int = 3
    final_samples: int = 16
    dropout: bool = False


class Evaluation(NamedTuple):
    """Scores of a split and what they were computed from.

    Attributes:
        scores: for classification accuracy, nll, brier and ece, of every position where an example has several; for
            other losses `nll`, the loss of the averaged prediction, with `accuracy` of the labels where they do not
            exclude one another, and `rmse` where target and prediction are numbers of equal shape.
        mean: averaged predictions `[N, ...]`, on the CPU, equal on all ranks; of targets of several positions `[n, C]`,
            one row a position that is not ignored.
        targets: `[N, ...]`, or `[n]`.
        passes: forward passes of an example that this took, over all ranks.
        members: averaged predictions of each member of an `Ensemble`, `[M, N, ...]`, on the CPU; else None.
    """

    scores: dict[str, float]
    mean: Tensor
    targets: Tensor
    passes: int
    members: Tensor | None = None


@torch.no_grad()
def evaluate(
    model: nn.Module, loss: Loss, batches: Iterable[Any], samples: int, seed: int = 0, *, dropout: bool = False
) -> Evaluation:
    """Return scores of noise-averaged predictions on all batches of all ranks.

    Args:
        model: the model, wrapped or not; keeps its mode, statistics and random state.
        loss: see `crossreg.losses`.
        batches: this rank's batches, on the model's device, as `CrossRegularizer` takes them.
        samples: noise draws averaged; a model that draws nothing is run once.
        seed: fixes the draws.
        dropout: dropout layers draw too; see `predict`.

    Raises:
        UserError: `samples` below 1, or `dropout` for a model without a dropout layer.
    """
    broadcast_buffers(model)
    model = unwrap(model)
    draws = num_draws(model, samples, dropout)
    classification = isinstance(loss, Classification)
    means, each, targets, values, rows = [], [], [], [torch.zeros(2)], 0
    for index, batch in enumerate(batches):
        x, y = inputs_and_target(batch)
        key = derive_seed(seed, "evaluate", index, rank())
        task = loss.expecting(y) if isinstance(loss, Classification) else loss
        found, apart = predict_apart(model, x, samples, loss=task, seed=key, dropout=dropout)
        scored = _scored(loss, y) if isinstance(loss, Classification) and y.ndim > 1 else None
        means.append(_positions(found.mean, scored).cpu())
        if isinstance(model, Ensemble):
            each.append(torch.stack([_positions(one, scored) for one in apart], 1).cpu())
        targets.append((y if scored is None else y[scored]).cpu())
        rows += len(y)
        if not classification and len(y):  # a rank may have no rows of a last batch
            size = torch.tensor([loss.size(y)])
            value = _loss_of_average(model, loss, x, y, draws, key, dropout).cpu()
            values.append(torch.cat([value.reshape(1) * size, size]))
    device = next(model.parameters()).device
    examples = int(gather_rows(torch.tensor([rows], device=device)).sum())
    mean, target = (gather_rows(torch.cat(parts).to(device)).cpu() for parts in (means, targets))
    members = gather_rows(torch.cat(each).to(device)).cpu().transpose(0, 1) if isinstance(model, Ensemble) else None
    if classification:
        # a model that diverged has no scores, but its training is told so and not broken off
        nan = calibration.Scores(math.nan, math.nan, math.nan, math.nan)
        scores = (calibration.score(mean, target) if mean.isfinite().all() else nan).as_dict()
        return Evaluation(scores, mean, target, num_passes(loss, draws) * examples, members)
    total, size = gather_rows(torch.stack(values).to(device)).sum(0).tolist()
    scores = {"nll": total / size if size else math.nan}
    if isinstance(loss, MultiLabel):
        scores["accuracy"] = float(((mean > 0.5) == (target.reshape(mean.shape) > 0.5)).float().mean())
    elif target.is_floating_point() and target.numel() == mean.numel():
        scores["rmse"] = float((mean - target.reshape(mean.shape)).square().mean().sqrt())
    return Evaluation(scores, mean, target, num_passes(loss, draws) * examples, members)


def _scored(loss: Classification, target: Tensor) -> Tensor:
    """Return which positions of targets `[B, ...]` count: padding does not."""
    return target != loss.ignore_index


def _positions(values: Tensor, scored: Tensor | None) -> Tensor:
    """Return rows `[n, C]` for the positions of values `[B, C, ...]` that count, a row as it is where each is one."""
    return values if scored is None else values.movedim(1, -1)[scored]


def num_passes(loss: Loss, draws: int) -> int:
    """Return how often `evaluate` runs the model on an example, of which a prediction averages so many draws.

    The loss of an average that is no probability is computed by passes of its own.
    """
    return draws if isinstance(loss, Classification) else 2 * draws


def _loss_of_average(model: nn.Module, loss: Loss, x: Any, y: Tensor, draws: int, seed: int, dropout: bool) -> Tensor:
    scale = temperature(model).to(y.device)
    with forked_rng(y.device), sampling(model, dropout=dropout):
        seed_device(y.device, seed)
        return loss.of_draws(torch.stack([loss.per_draw(call(model, x), y, scale) for _ in range(draws)]), y)
