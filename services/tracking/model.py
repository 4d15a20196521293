"""Logging a trained model in a format that holds no pickle."""

from __future__ import annotations

import importlib.metadata
import logging
import tempfile
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError

__all__ = ["DEFAULT_PARAMS", "log_model", "save_model"]

DEFAULT_PARAMS = {"samples": 16, "seed": 0}
"""Parameters of `predict`: noise draws averaged over, and the seed that makes them repeatable."""

_FILES = ("weights.safetensors", "model.json")
_REQUIREMENTS = ("crossreg", "mlflow", "numpy", "safetensors", "torch")


def save_model(directory: Path, input_example: Any, path: Path, model: Any = None) -> Any:
    """Write an exported model as an MLflow pyfunc model folder and return its `mlflow.models.Model`.

    Models from code: the folder holds `pyfunc_model.py`, the weights as safetensors and a JSON description.

    Args:
        directory: what `crossreg.prediction.export.export_model` wrote.
        input_example: two or more inputs as `predict` will get them: an array `[N, ...]`, of which type and shape
            become the signature, or a DataFrame of raw rows, of which the names do.
        path: the folder to write; must not exist.
        model: an `mlflow.models.Model` to fill.

    Raises:
        UserError: a file is missing or the example has no batch.
    """
    from mlflow import pyfunc
    from mlflow.models import Model

    missing = [name for name in _FILES if not (directory / name).is_file()]
    if missing:
        raise UserError(
            f"{directory} is not an exported model: {', '.join(missing)} missing; write it with export_model."
        )
    if len(input_example) < 2:
        raise UserError(f"input_example has shape {input_example.shape}; give a batch of two or more inputs.")
    signature = _signature(directory, input_example)
    model = model or Model()
    pyfunc.save_model(
        path=str(path),
        mlflow_model=model,
        python_model=str(Path(__file__).with_name("pyfunc_model.py")),
        artifacts={name.partition(".")[0]: str(directory / name) for name in _FILES},
        signature=signature,
        input_example=input_example,
        # Given, so that MLflow does not load the model in a fresh process to guess them.
        pip_requirements=[f"{name}=={importlib.metadata.version(name)}" for name in _REQUIREMENTS],
    )
    return model


def _signature(directory: Path, input_example: Any) -> Any:
    """Return what `predict` takes and returns; columns of a table are named, and take numbers and text alike."""
    import pandas as pd
    from mlflow.models import ModelSignature, infer_signature
    from mlflow.types.schema import AnyType, ColSpec, Schema, TensorSpec

    from crossreg.inputs import Sequence
    from crossreg.prediction.export import load_exported

    exported = load_exported(directory)
    mean, spread = exported.predict(exported.encode(input_example), **DEFAULT_PARAMS)
    if not isinstance(input_example, pd.DataFrame):
        found = infer_signature(input_example, mean, params=DEFAULT_PARAMS)
        if isinstance(exported.inputs, Sequence) and exported.inputs.lengths_differ:
            shape = [-1, *input_example.shape[1:]]
            shape[1 if exported.inputs.time == "first" or len(shape) == 2 else 2] = -1
            arrays = Schema([TensorSpec(input_example.dtype, shape)])
            return ModelSignature(arrays, found.outputs, found.params)
        return found
    found = infer_signature(None, pd.DataFrame(exported.answers(mean, spread)), params=DEFAULT_PARAMS)
    # a type would refuse whole numbers for decimal ones, and text that a file holds for numbers; what a column cannot
    # hold, the model itself refuses, with the row
    columns = Schema([ColSpec(AnyType(), name, required=False) for name in input_example.columns])
    return ModelSignature(columns, found.outputs, found.params)


def log_model(client: Any, experiment_id: str, run_id: str, directory: Path, input_example: Any, name: str) -> str:
    """Log an exported model as the run's output and return its `models:/` URI.

    Through the client: `mlflow.pyfunc.log_model` needs a process-wide tracking URI and active run, and reads
    every metric history of the run.
    """
    from mlflow.entities import LoggedModelOutput
    from mlflow.models import Model

    run = client.get_run(run_id)
    logged = client.create_logged_model(experiment_id, name=name, source_run_id=run_id, params=run.data.params)
    ready = False
    try:
        with tempfile.TemporaryDirectory() as temporary:
            path = Path(temporary) / "model"
            model = Model(
                artifact_path=logged.artifact_location,
                run_id=run_id,
                model_uuid=logged.model_id,
                model_id=logged.model_id,
            )
            save_model(directory, input_example, path, model)
            client.log_model_artifacts(logged.model_id, str(path))
        client.log_outputs(run_id, [LoggedModelOutput(logged.model_id, step=0)])
        ready = True
    finally:
        _finalize(client, logged.model_id, ready)
    return f"models:/{logged.model_id}"


def _finalize(client: Any, model_id: str, ready: bool) -> None:
    try:
        client.finalize_logged_model(model_id, "READY" if ready else "FAILED")
    except Exception as error:
        if ready:
            raise
        # The first failure is the one to report.
        logging.getLogger(__name__).debug("could not mark model %s failed: %s", model_id, error)
