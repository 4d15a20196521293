"""Prediction with noise on, and dropout where asked for, averaged over draws."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from crossreg.core.calling import call
from crossreg.core.errors import UserError
from crossreg.core.modules import unwrap
from crossreg.core.random import forked_rng, seed_device
from crossreg.losses import Loss, as_loss
from crossreg.models.ensemble import apart
from crossreg.regularizers.noise import dropout_layers, sampling, stochastic
from crossreg.regularizers.temperature import temperature

__all__ = ["Prediction", "num_draws", "predict", "predict_apart"]


class Prediction(NamedTuple):
    """A prediction averaged over draws of the noise.

    Attributes:
        mean: probabilities `[B, C, ...]` (classification) or means `[B, ...]` (regression), float.
        spread: standard deviation over the draws, and over the members of an `Ensemble` too, of the same shape; zero
            where there is one of both, or the model draws nothing.
    """

    mean: Tensor
    spread: Tensor


@torch.no_grad()
def predict(
    model: nn.Module,
    x: Any,
    samples: int = 16,
    *,
    loss: Loss | nn.Module | str = "classification",
    seed: int | None = None,
    dropout: bool = False,
    common: bool = False,
) -> Prediction:
    """Return predictions averaged over `samples` noise draws, the output temperature applied, and their spread.

    The model keeps its mode and its running statistics. A model that draws nothing is run once.

    Args:
        model: any model, with or without noise or wrapper.
        x: one batch of inputs, on the model's device: a tensor, or several in a tuple (by position) or a dictionary (by
            name).
        samples: noise draws, K >= 1.
        loss: says what a prediction is; see `crossreg.losses`.
        seed: fixes the draws and leaves the global generators as they were; None draws from those.
        dropout: dropout layers draw too, every time anew: MC dropout (Gal & Ghahramani 2016, arXiv 1506.02142).
        common: all rows share the draws, so that with a seed a row's prediction does not depend on the other rows.

    Raises:
        UserError: `samples` below 1, or `dropout` for a model without a dropout layer.
    """
    return predict_apart(model, x, samples, loss=loss, seed=seed, dropout=dropout, common=common)[0]


@torch.no_grad()
def predict_apart(
    model: nn.Module,
    x: Any,
    samples: int = 16,
    *,
    loss: Loss | nn.Module | str = "classification",
    seed: int | None = None,
    dropout: bool = False,
    common: bool = False,
) -> tuple[Prediction, Tensor]:
    """Return what `predict` does, and what each member of an `Ensemble` says: means over draws `[M, B, ...]`.

    M is 1 for another model. Arguments and errors are those of `predict`.
    """
    draws = num_draws(model, samples, dropout)
    task, scale = as_loss(loss), temperature(model).to(next(unwrap(model).parameters()).device)
    mean = members = square = torch.zeros(())
    with _seeded(model, seed), sampling(unwrap(model), dropout=dropout, common=common), apart(model) as ensemble:
        for k in range(1, draws + 1):
            output = call(model, x)
            each = torch.stack([task.predict(one, scale) for one in (output if ensemble else [output])])
            together = task.predict(ensemble.average(output), scale) if ensemble else each[0]
            mean = mean + (together - mean) / k
            # Welford's update: one pass, one draw in memory
            delta = each - members
            members = members + delta / k
            square = square + delta * (each - members)
    # of all M K answers: within members over the draws, and between members
    total = square.sum(0) + draws * (members - members.mean(0)).square().sum(0)
    return Prediction(mean, (total / max(len(members) * draws - 1, 1)).clamp_min(0).sqrt()), members


def num_draws(model: nn.Module, samples: int, dropout: bool = False) -> int:
    """Return how often `predict` runs the model: `samples` times, or once where nothing would differ.

    Raises:
        UserError: as `predict` does.
    """
    if samples < 1:
        raise UserError(f"samples is {samples}; it must be at least 1")
    if dropout and not dropout_layers(model):
        raise UserError(f"{type(unwrap(model)).__name__} has no dropout layer to draw from; build one with nn.Dropout")
    return samples if dropout or any(module.predicts for module in stochastic(model)) else 1


@contextmanager
def _seeded(model: nn.Module, seed: int | None) -> Iterator[None]:
    if seed is None:
        yield
        return
    device = next(unwrap(model).parameters()).device
    with forked_rng(device):
        seed_device(device, seed)
        yield
