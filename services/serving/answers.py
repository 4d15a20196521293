"""What the service answers, as it is documented on the OpenAPI page."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from services.serving.service import Active

__all__ = ["Answer", "ClassPrediction", "NumberPrediction", "Problem", "Question", "Ready", "answer"]


class Question(BaseModel):
    """Examples to predict, in the units that training data came in."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Any] = Field(description="Examples, each of the shape that `GET /readyz` names; pixels in 0..255.")


class ClassPrediction(BaseModel):
    """One example's prediction by a classifier."""

    label: str = Field(description="The most probable class.")
    probabilities: list[float] = Field(description="Averaged over the noise draws, in the order of `classes`.")
    entropy: float = Field(description="Of these probabilities, in nats: 0 is certain, log(classes) knows nothing.")
    spread: list[float] = Field(description="Standard deviation of each probability over the draws.")


class NumberPrediction(BaseModel):
    """One example's prediction by a regression."""

    mean: list[float] = Field(description="Averaged over the noise draws, in the target's units.")
    spread: list[float] = Field(description="Standard deviation of the mean over the draws: doubt of the model.")
    std: list[float] | None = Field(
        description="Standard deviation of an observation: the draws' and the learned noise of the target together. "
        "Null for a model trained without noise."
    )


class Answer(BaseModel):
    """Predictions in the order of the inputs, all by one version."""

    model: str = Field(description="As the service was asked to serve it.")
    version: str | None = Field(description="In the registry, where it was asked for by its name.")
    model_id: str
    samples: int = Field(description="Noise draws averaged.")
    classes: list[str] | None = Field(description="Null for a regression.")
    predictions: list[ClassPrediction] | list[NumberPrediction]


class Ready(BaseModel):
    """What answers now."""

    status: str
    model: str
    version: str | None
    model_id: str
    since: float = Field(description="When this version began to answer, seconds since 1970.")
    task: str
    input_shape: list[int]
    images: bool = Field(description="Whether it takes image files too.")
    classes: list[str] | None
    replicas: dict[str, int] = Field(description="How many replicas are in which state.")
    retried: int = Field(description="Requests sent again because their replica was lost.")
    trouble: str | None = Field(description="Why the alias's newest version does not answer; null while it does.")


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str


def answer(active: Active, mean: np.ndarray, spread: np.ndarray, samples: int) -> dict[str, Any]:
    """Return an `Answer` as plain values; mean and spread are `[N, outputs]`, finite."""
    model = active.model
    classes = names(active)
    # float32 written as the shortest decimal that reads back equal, not with the digits of its float64 image
    means, spreads = _short(mean), _short(spread)
    predictions: list[dict[str, Any]]
    if classes is not None:
        logs = np.log(mean, out=np.zeros_like(mean), where=mean > 0)
        entropy = _short(np.maximum(-(mean * logs).sum(1), 0))
        predictions = [
            {"label": classes[best], "probabilities": p, "entropy": h, "spread": s}
            for best, p, h, s in zip(mean.argmax(1).tolist(), means, entropy, spreads, strict=True)
        ]
    else:
        noise = model.observation_std
        stds = [None] * len(means) if noise is None else _short(np.sqrt(spread**2 + noise**2))
        predictions = [{"mean": m, "spread": s, "std": std} for m, s, std in zip(means, spreads, stds, strict=True)]
    return {
        "model": active.version.uri,
        "version": active.version.version,
        "model_id": active.version.model_id,
        "samples": samples,
        "classes": classes,
        "predictions": predictions,
    }


def names(active: Active) -> list[str] | None:
    """Return the names of the classes, their numbers where they have none, None for a regression."""
    model = active.model
    if model.task != "classification":
        return None
    return list(model.classes) or [str(index) for index in range(model.num_outputs)]


def _short(values: np.ndarray) -> list[Any]:
    if values.ndim == 1:
        return [float(str(value)) for value in values.astype(np.float32)]
    return [_short(row) for row in values]
