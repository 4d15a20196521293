"""What the service answers, as it is documented on the OpenAPI page."""

from __future__ import annotations

from typing import Any

import numpy as np
from pydantic import BaseModel, ConfigDict, Field

from crossreg.inputs import Category, Table
from crossreg.services.serving.service import Active

__all__ = [
    "Answer",
    "ClassPrediction",
    "ColumnField",
    "NumberPrediction",
    "Problem",
    "Question",
    "Ready",
    "answer",
    "columns",
    "names",
]


class Question(BaseModel):
    """Examples to predict, in the units that training data came in: `inputs` or `rows`."""

    model_config = ConfigDict(extra="forbid")

    inputs: list[Any] | None = Field(
        default=None,
        description="Examples as arrays, each of the shape that `GET /readyz` names; pixels in 0..255. Of a table of "
        "numbers, a row has a number for each of its columns, null where it is missing.",
    )
    rows: list[dict[str, str | float | bool | None]] | None = Field(
        default=None,
        description="Rows of a table, each with a value for each of the `columns` that `GET /readyz` names; null where "
        "it is missing.",
    )


class ClassPrediction(BaseModel):
    """One example's prediction by a classifier."""

    label: str = Field(description="The most probable class.")
    probabilities: list[float] = Field(description="Averaged over the noise draws, in the order of `classes`.")
    entropy: float = Field(description="Of these probabilities, in nats: 0 is certain, log(classes) knows nothing.")
    spread: list[float] = Field(description="Standard deviation of each probability over draws and networks.")


class NumberPrediction(BaseModel):
    """One example's prediction by a regression."""

    mean: list[float] = Field(description="Averaged over the noise draws, in the target's units.")
    spread: list[float] = Field(
        description="Standard deviation of the mean over draws and networks: doubt of the model."
    )
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
    warnings: list[str] = Field(
        description="What was guessed or is odd, such as values that training never saw, or far from all that it saw."
    )
    predictions: list[ClassPrediction] | list[NumberPrediction]


class ColumnField(BaseModel):
    """A field of a table's row."""

    name: str
    kind: str = Field(description="number, boolean, category or date.")
    expects: str = Field(description="What a value has to be, in words.")
    unit: str = Field(description="Of a number, where the training's table had one.")
    values: list[str] | None = Field(description="Of a category, those that training saw.")
    example: str | float | bool | None = Field(description="A value that training saw.")


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
    columns: list[ColumnField] | None = Field(description="Of a table's rows, in their order; null for arrays.")
    classes: list[str] | None
    replicas: dict[str, int] = Field(description="How many replicas are in which state.")
    retried: int = Field(description="Requests sent again because their replica was lost.")
    trouble: str | None = Field(description="Why the alias's newest version does not answer; null while it does.")


class Problem(BaseModel):
    """What is wrong with a request."""

    detail: str


def answer(active: Active, mean: np.ndarray, spread: np.ndarray, samples: int, warnings: list[str]) -> dict[str, Any]:
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
        std = model.observed_std(spread)
        stds = [None] * len(means) if std is None else _short(std)
        predictions = [{"mean": m, "spread": s, "std": std} for m, s, std in zip(means, spreads, stds, strict=True)]
    return {
        "model": active.version.uri,
        "version": active.version.version,
        "model_id": active.version.model_id,
        "samples": samples,
        "classes": classes,
        "warnings": warnings,
        "predictions": predictions,
    }


def columns(active: Active) -> list[dict[str, Any]] | None:
    """Return the fields of a row, None for a model that takes arrays."""
    inputs = active.model.inputs
    if not isinstance(inputs, Table):
        return None
    return [
        {
            "name": column.name,
            "kind": column.kind,
            "expects": column.expects,
            "unit": getattr(column, "unit", ""),
            "values": list(column.values) if isinstance(column, Category) else None,
            "example": column.example,
        }
        for column in inputs.columns
    ]


def names(active: Active) -> list[str] | None:
    """Return the names of the classes, their numbers where they have none, None for a regression."""
    return list(active.model.labels) or None


def _short(values: np.ndarray) -> list[Any]:
    if values.ndim == 1:
        return [float(str(value)) for value in values.astype(np.float32)]
    return [_short(row) for row in values]
