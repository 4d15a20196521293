"""The script that MLflow runs to load a logged model; copied into the model, it imports no service."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np
import pandas as pd


class NoisyPredictor(mlflow.pyfunc.PythonModel):
    """Predictions averaged over noise draws: of arrays, or of a data frame's raw rows."""

    def load_context(self, context: Any) -> None:
        """Load the weights that lie beside the model's description."""
        from crossreg.prediction.export import load_exported

        self._predictor = load_exported(Path(context.artifacts["weights"]).parent)

    # annotated as MLflow has it without remarks; the input is a data frame as well
    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> Any:
        """Return predictions; params: `samples` (draws) and `seed`.

        A data frame of N rows gets one of answers: `label` and a probability a class, or `mean` and `std`. An array
        `[N, ...]` gets probabilities `[N, classes]` or means `[N, outputs]`.
        """
        chosen = params or {}
        samples, seed = int(chosen.get("samples", 16)), int(chosen.get("seed", 0))
        notes: list[str] = []
        mean, spread = self._predictor.predict(self._predictor.encode(model_input, notes), samples, seed)
        for note in notes:
            warnings.warn(note, stacklevel=2)
        given: Any = model_input
        if isinstance(given, pd.DataFrame):
            return pd.DataFrame(self._predictor.answers(mean, spread), index=given.index)
        return mean


mlflow.models.set_model(NoisyPredictor())
