"""From a model's two files to a predictor, with checks; the same in the service and in its replicas."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Mapping
from pathlib import Path

import numpy as np

from crossreg.core.errors import UserError
from crossreg.models import is_custom
from crossreg.prediction.export import DESCRIPTION_FILE, Exported, load_exported

__all__ = ["LoadedModel", "load"]

# rounding of one forward pass of a batch against single examples, in probabilities or standard deviations
_ROUNDING = 1e-3


class LoadedModel:
    """A model that answers each example as if it had come alone.

    Args:
        exported: the predictor.
        max_batch: examples in a forward pass.

    Attributes:
        alone: whether examples go through one by one: for a network that mixes them (its first dimension is not
            always the batch), found by trying.
    """

    def __init__(self, exported: Exported, max_batch: int) -> None:
        self.exported = exported
        self._max_batch = max_batch
        self.alone = False
        x = _examples(exported)
        together = exported.predict(x, samples=2)
        alone = exported.predict(x, samples=2, batch=1)
        for one, other in zip(together, alone, strict=True):
            if not (np.isfinite(one).all() and np.isfinite(other).all()):
                raise UserError("the model's predictions are not finite; it cannot be served")
            size = max(1.0, float(np.abs(other).max()))
            self.alone = self.alone or float(np.abs(one - other).max()) > _ROUNDING * size

    def predict(self, x: np.ndarray, samples: int, seed: int) -> tuple[np.ndarray, np.ndarray]:
        """Return mean and spread over the draws, `[N, outputs]` each."""
        return self.exported.predict(x, samples, seed, batch=1 if self.alone else self._max_batch)


def load(files: Mapping[str, bytes], max_batch: int, trusted: tuple[str, ...] = ()) -> LoadedModel:
    """Build a model from the content of its files.

    Args:
        files: the content by name; see `crossreg.services.serving.registry.FILES`.
        max_batch: examples in a forward pass.
        trusted: functions that the description may name to build the network.

    Raises:
        UserError: damaged files, a network built by a function that is not trusted, or predictions that are not
            finite.
    """
    try:
        name = str(json.loads(files[DESCRIPTION_FILE])["model"])
    except (ValueError, KeyError, TypeError) as error:
        raise UserError(f"{DESCRIPTION_FILE} does not describe a model ({type(error).__name__}: {error})") from None
    # a name with a colon is an import: whoever writes the file would choose what is called here
    for one in name.split(","):
        if is_custom(one) and one not in trusted:
            raise UserError(
                f"this model is built by the function {one!r}, which the file names and this machine would call; "
                f"if it is yours, allow it: --trust {one}"
            )
    with tempfile.TemporaryDirectory() as folder:
        for file, content in files.items():
            (Path(folder) / file).write_bytes(content)
        try:
            exported = load_exported(folder)
        except UserError as error:
            # a temporary name says nothing to anybody
            raise UserError(str(error).replace(folder, "its folder")) from error
    try:
        return LoadedModel(exported, max_batch)
    except UserError:
        raise
    # the network runs here for the first time, and may be anybody's: a service must go on whatever it raises
    except Exception as error:
        raise UserError(f"the model cannot predict ({type(error).__name__}: {error})") from error


def _examples(exported: Exported, count: int = 3) -> np.ndarray:
    draws = np.random.default_rng(0)
    shape = (count, *exported.input_shape)
    if exported.integers:  # of a vocabulary that may be as small as two
        return draws.integers(0, 2, shape)
    if exported.images:
        return draws.integers(0, 256, shape).astype(np.uint8)
    return draws.normal(size=shape).astype(np.float32)
