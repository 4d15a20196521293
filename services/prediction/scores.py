"""Scores of predictions against the right answers of a file."""

from __future__ import annotations

from typing import Any

import numpy as np

from crossreg.core.errors import UserError, quoted
from crossreg.inputs import Table
from crossreg.inputs.text import NumberFormat, text_of

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
        return _rmse(exported, mean, answers, notes)
    import pandas as pd
    import torch

    from crossreg.prediction import calibration

    if isinstance(answers, pd.DataFrame):
        raise UserError(
            f"the right answers have {answers.shape[1]} columns; a class is one value: pass one-hot through argmax"
        )
    text = text_of(answers)
    unit = exported.inputs.unit if isinstance(exported.inputs, Table) else ""
    if unit:
        text = text.str.removesuffix(unit).str.removeprefix(unit).str.strip()
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


def _rmse(exported: Any, mean: np.ndarray, answers: Any, notes: list[str]) -> dict[str, float]:
    import pandas as pd

    if isinstance(answers, pd.DataFrame):
        right = answers.to_numpy(np.float64)
    elif pd.api.types.is_numeric_dtype(answers.dtype):
        right = answers.to_numpy(np.float64, na_value=np.nan)[:, None]
    else:
        # as the target was written in training, not as it looks here
        form = exported.inputs.target_format if isinstance(exported.inputs, Table) else NumberFormat()
        text = text_of(answers)
        read = form.read(text)
        if (wrong := (read.isna() & text.notna()).to_numpy()).any():
            row = int(np.argmax(wrong))
            raise UserError(
                f"the right answer in row {row + 1} is {quoted(str(text.iloc[row]))}; expected a number as in training"
                + (f", with {form.decimal!r} before decimals" if form.decimal != "." else "")
            )
        right = read.to_numpy()[:, None]
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
