"""The script that MLflow runs to load a logged model; copied into the model, it imports no service."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow.models
import mlflow.pyfunc
import numpy as np


class NoisyPredictor(mlflow.pyfunc.PythonModel):
    """Predictions averaged over noise draws: class probabilities for a classifier."""

    def load_context(self, context: Any) -> None:
        """Load the weights that lie beside the model's description."""
        from crossreg.prediction.export import load_exported

        self._predictor = load_exported(Path(context.artifacts["weights"]).parent)

    def predict(self, context: Any, model_input: np.ndarray, params: dict[str, Any] | None = None) -> np.ndarray:
        """Return predictions `[N, classes]` for inputs `[N, ...]`; params: `samples` (draws) and `seed`."""
        chosen = params or {}
        samples, seed = int(chosen.get("samples", 16)), int(chosen.get("seed", 0))
        return self._predictor(model_input, samples=samples, seed=seed)


mlflow.models.set_model(NoisyPredictor())
