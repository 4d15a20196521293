"""From a run, a registered model or a folder to a predictor."""

from __future__ import annotations

from pathlib import Path

from crossreg.core.errors import UserError
from crossreg.services.serving.loading import LoadedModel, load
from crossreg.services.serving.registry import ALLOWED, FILES, Registry
from crossreg.services.tracking import TrackingConfig

__all__ = ["open_model"]

_BATCH = 256


def open_model(model: str, tracking: TrackingConfig, trusted: tuple[str, ...] = (), batch: int = _BATCH) -> LoadedModel:
    """Return a model that predicts.

    Args:
        model: a folder that holds an exported model (as `crossreg train` keeps one), or a model of the store.
        tracking: names the store.
        trusted: functions that the model's description may name to build the network.
        batch: examples in a forward pass.

    Raises:
        UserError: there is no such model, it is damaged, or a function builds it that is not trusted.
    """
    if (folder := Path(model)).is_dir():
        # MLflow keeps a model's files one folder further down
        places = (folder, folder / "artifacts", folder / "model")
        place = next((one for one in places if (one / FILES[1]).is_file()), None)
        if place is None:
            raise UserError(f"{model}: the folder holds no exported model; it needs {' and '.join(FILES)}")
        try:
            files = {name: (place / name).read_bytes() for name in FILES}
        except OSError as error:
            raise UserError(f"{model}: {error.filename} cannot be read ({error.strerror})") from error
        return load(files, batch, trusted)
    if "/" in model and not model.startswith("models:/"):
        raise UserError(f"model {model!r} is neither a folder nor a model's URI; allowed are a folder, {ALLOWED}")
    registry = Registry(tracking)
    return load(registry.read(registry.resolve(model)), batch, trusted)
