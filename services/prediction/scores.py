"""Scores of predictions against the right answers of a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.inputs.text import number_formats, text_of

__all__ = ["scored"]


def scored(exported: Any, mean: np.ndarray, answers: Any, notes: list[str]) -> dict[str, float]:
    """Return accuracy, NLL, Brier score and ECE of probabilities, or the RMSE of means.

    Args:
        exported: the model.
        mean: `[N, outputs]`.
        answers: Series of N, or DataFrame of N rows for several outputs; rows without one are left out, and said.
        notes: where that is said.

    Raises:
        UserError: an answer that is no class, or no number.
    """
    if exported.task == "regression":
        return _rmse(mean, answers, notes)
    import torch

    from crossreg.prediction import calibration

    text = text_of(answers)
    known = text.notna().to_numpy()
    places = {label: index for index, label in enumerate(exported.labels)}
    codes = np.array([places.get(_as_class(one, places), -1) for one in text[known]], dtype=np.int64)
    if (codes < 0).any():
        row = int(np.flatnonzero(known)[np.argmax(codes < 0)])
        listed = ", ".join(exported.labels[:10])
        raise UserError(
            f"the right answer in row {row + 1} is {quoted(text.iloc[row])}; the model's classes are {listed}"
        )
    if not _enough(known, notes):
        return {}
    found = calibration.score(torch.from_numpy(mean[known]).double(), torch.from_numpy(codes))
    return found.as_dict()


def _as_class(text: str, places: dict[str, int]) -> str:
    """Return the name of a class; whole numbers are one however they are written, 1 and 1.0."""
    if text in places:
        return text
    try:
        number = float(text)
    except ValueError:
        return text
    return str(int(number)) if number.is_integer() else text


def _rmse(mean: np.ndarray, answers: Any, notes: list[str]) -> dict[str, float]:
    import pandas as pd

    if isinstance(answers, pd.DataFrame):
        right = answers.to_numpy(np.float64)
    elif pd.api.types.is_numeric_dtype(answers.dtype):
        right = answers.to_numpy(np.float64, na_value=np.nan)[:, None]
    else:
        text = text_of(answers)
        forms = number_formats(text)
        if len(forms) != 1 and text.notna().any():
            raise UserError(
                f"the right answers hold {quoted(str(text.dropna().iloc[0]))}, and a regression needs numbers"
            )
        right = (forms[0].read(text) if forms else text.astype("float64")).to_numpy()[:, None]
    known = ~np.isnan(right).any(1)
    if right.shape[1] != mean.shape[1]:
        raise UserError(f"the right answers have {right.shape[1]} columns; the model predicts {mean.shape[1]}")
    if not _enough(known, notes):
        return {}
    return {"rmse": float(np.sqrt(np.mean((mean[known] - right[known]) ** 2)))}


def _enough(known: np.ndarray, notes: list[str]) -> bool:
    if not known.all():
        notes.append(f"{int((~known).sum()):,} of {len(known):,} rows have no right answer and are not scored")
    return bool(known.any())
