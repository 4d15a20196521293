"""Outcomes made up by hand: every number in them is chosen, none is trained."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from crossreg.services.comparison.outcome import Outcome, Point
from crossreg.services.comparison.report import Context, summarize
from crossreg.training.compute import Cost

EDGES = (np.arange(16) / 15).tolist()


def context(**changes: Any) -> Context:
    fields: dict[str, Any] = {
        "title": "cnn on fashion-mnist",
        "command": "crossreg compare --model cnn --data fashion-mnist",
        "commit": "40ccde4",
        "machine": {"CPUs": "4"},
        "versions": {"torch": "2.15"},
        "model": "cnn",
        "data": "fashion-mnist",
        "num_train": 1800,
        "num_reg": 200,
        "num_test": 10000,
        "population": 8,
    }
    return Context(**(fields | changes))


def cost(flops: float) -> Cost:
    return Cost(examples=flops / 1e6, backward_examples=flops / 2e6, flops=flops, worker_seconds=flops / 1e11)


def point(flops: float, reg: dict[str, float], test: dict[str, float], step: int = 0) -> Point:
    return Point(cost=cost(flops), step=step, reg=reg, test=test)


def scores(accuracy: float = 0.8, nll: float = 0.6, ece: float = 0.05, brier: float = 0.3) -> dict[str, float]:
    return {"accuracy": accuracy, "nll": nll, "brier": brier, "ece": ece}


NAN = scores(math.nan, math.nan, math.nan, math.nan)


def outcome(method: str = "crossreg", budget: str = "matched", seed: int = 0, **changes: Any) -> Outcome:
    fields: dict[str, Any] = {
        "method": method,
        "budget": budget,
        "seed": seed,
        "test": scores(),
        "test_scaled": scores(),
        "temperature": 1.0,
        "reg": scores(),
        "cost": cost(1e12),
        "peak_memory_bytes": 2**29,
        "seconds": 30.0,
    }
    return Outcome.model_validate(fields | changes)


def runs(method: str, accuracies: list[float], budget: str = "matched", **changes: Any) -> list[Outcome]:
    """One outcome a seed that differs in accuracy; NLL, ECE and Brier score follow from it."""
    return [
        outcome(
            method, budget, seed, test=scores(a, 2 - a, 1 - a, 3 - a), test_scaled=scores(a, 2 - a, 1 - a), **changes
        )
        for seed, a in enumerate(accuracies)
    ]


def sentence(outcomes: list[Outcome], **changes: Any) -> str:
    """The one sentence of a comparison of two methods."""
    (text,) = summarize(outcomes, context(**changes)).sentences
    return text


def noise(*sigmas: float) -> dict[str, float]:
    """Noise scales of a network with so many layers."""
    return {f"noise/{index:02d}_norm{index}": value for index, value in enumerate(sigmas)}


def diagram(accuracies: dict[int, float], counts: dict[int, int]) -> dict[str, Any]:
    """A reliability diagram of 15 bins, filled where said, with a confidence in the middle of each bin."""
    middle = [(b + 0.5) / 15 for b in range(15)]
    return {
        "confidence": [middle[b] if b in counts else math.nan for b in range(15)],
        "accuracy": [accuracies.get(b, math.nan) for b in range(15)],
        "count": [counts.get(b, 0) for b in range(15)],
        "edges": EDGES,
        "ece": 0.1,
    }
