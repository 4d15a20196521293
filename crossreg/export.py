"""A trained model as two files without code: `weights.safetensors` and `model.json`, and a predictor made of them."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from crossreg.batches import Preprocess
from crossreg.errors import UserError
from crossreg.models import build
from crossreg.noise import inject_noise
from crossreg.prediction import predict
from crossreg.rho import unwrap

if TYPE_CHECKING:
    import numpy as np

__all__ = ["export_model", "load_exported"]

WEIGHTS_FILE, DESCRIPTION_FILE = "weights.safetensors", "model.json"
_BATCH = 256


def export_model(
    model: nn.Module,
    preprocess: Preprocess,
    directory: str | os.PathLike[str],
    *,
    name: str,
    input_shape: tuple[int, ...],
    num_outputs: int,
    options: dict[str, Any] | None = None,
    noise: dict[str, Any] | None = None,
    task: str = "classification",
    classes: tuple[str, ...] = (),
    target: tuple[list[float], list[float]] | None = None,
) -> Path:
    """Write a model for prediction elsewhere; needs the `safetensors` package.

    Args:
        model: trained, with or without noise.
        preprocess: what its inputs go through.
        directory: created if missing.
        name: as `crossreg.models.build` takes it; a function of your own must be importable where it is loaded.
        input_shape: of one example.
        num_outputs: classes, or outputs of a regression.
        options: other arguments of the model.
        noise: arguments of `inject_noise`; None for a model without noise.
        task: "classification" or "regression".
        classes: names of the classes.
        target: mean and standard deviation of the outputs, where the model was trained on standardized ones.

    Returns:
        The directory.
    """
    from safetensors.torch import save_file

    directory = Path(directory)
    directory.mkdir(parents=True, exist_ok=True)
    tensors = {f"model.{k}": v for k, v in unwrap(model).state_dict().items()}
    tensors |= {f"preprocess.{k}": v for k, v in preprocess.state_dict().items()}
    # weights that are shared or not contiguous are written once each, in plain layout
    save_file({k: v.detach().cpu().clone().contiguous() for k, v in tensors.items()}, directory / WEIGHTS_FILE)
    description = {
        "format": 1,
        "model": name,
        "options": options or {},
        "input_shape": list(input_shape),
        "num_outputs": num_outputs,
        "noise": noise,
        "task": task,
        "classes": list(classes),
        "target": target,
    }
    (directory / DESCRIPTION_FILE).write_text(json.dumps(description, indent=2))
    return directory


def load_exported(directory: str | os.PathLike[str]) -> Callable[..., np.ndarray]:
    """Return a function that predicts with an exported model, on the CPU.

    Args:
        directory: holds the two files of `export_model`.

    Returns:
        `predictor(x, samples=16, seed=0)`: x is an array of raw inputs `[N, ...]` as stored in the dataset (images
        as uint8 or as float in 0..255), the result probabilities `[N, classes]` or means `[N, outputs]`, float32,
        averaged over `samples` noise draws and repeatable for a seed.

    Raises:
        UserError: files missing, or inputs of another shape.
    """
    import numpy as np
    from safetensors.torch import load_file

    directory = Path(directory)
    if not (directory / WEIGHTS_FILE).is_file() or not (directory / DESCRIPTION_FILE).is_file():
        raise UserError(f"{directory} holds no exported model; it needs {WEIGHTS_FILE} and {DESCRIPTION_FILE}")
    about = json.loads((directory / DESCRIPTION_FILE).read_text())
    tensors = load_file(directory / WEIGHTS_FILE)
    shape = tuple(about["input_shape"])
    with torch.random.fork_rng(devices=[]):
        model = build(about["model"], input_shape=shape, num_outputs=about["num_outputs"], **about["options"])
    if about["noise"] is not None:
        inject_noise(model, **about["noise"])
    model.load_state_dict(_under(tensors, "model."))
    model.eval()
    statistics = _under(tensors, "preprocess.")
    preprocess = Preprocess(statistics["mean"], statistics["std"])
    # an image dataset is stored as bytes and normalized per channel; MLflow may hand those over as floats
    images = statistics["mean"].ndim == 1 and len(shape) == 3

    def predictor(x: np.ndarray, samples: int = 16, seed: int = 0) -> np.ndarray:
        x = np.asarray(x)
        if x.shape[1:] != shape:
            raise UserError(f"inputs have shape {x.shape}; this model takes (N, {', '.join(map(str, shape))})")
        if images and x.dtype != np.uint8:
            x = np.clip(np.rint(x), 0, 255).astype(np.uint8)
        rows = torch.from_numpy(np.ascontiguousarray(x)).split(_BATCH)
        parts = [
            predict(model, preprocess(part), samples, loss=about["task"], seed=seed + index).mean
            for index, part in enumerate(rows)
        ]
        mean = torch.cat(parts).numpy() if parts else np.zeros((0, about["num_outputs"]), np.float32)
        if about["target"]:
            centre, scale = (np.asarray(values, np.float32) for values in about["target"])
            mean = mean * scale + centre
        return mean

    return predictor


def _under(tensors: dict[str, Tensor], prefix: str) -> dict[str, Tensor]:
    return {name.removeprefix(prefix): t for name, t in tensors.items() if name.startswith(prefix)}
