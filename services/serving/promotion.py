"""From a run to a registered version that an alias stands for."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.serving.registry import Registry, Version, logged_model
from crossreg.services.tracking import TrackingConfig, store

__all__ = ["Promotion", "promote"]


@dataclass(frozen=True)
class Promotion:
    """What `promote` did.

    Attributes:
        uri: `models:/NAME@ALIAS`, which now stands for this version.
        name: registered model.
        version: its version.
        alias: the alias.
        model_id: the logged model.
        run_id: its run.
        registered: whether the version is new; a model that was registered before keeps its version.
    """

    uri: str
    name: str
    version: str
    alias: str
    model_id: str
    run_id: str
    registered: bool

    def as_dict(self) -> dict[str, Any]:
        """Return the fields as plain values."""
        return asdict(self)


def promote(tracking: TrackingConfig, run_id: str, name: str, alias: str = "champion") -> Promotion:
    """Register a run's model as a version and let an alias stand for it; safe to repeat.

    Args:
        tracking: the store.
        run_id: an MLflow run that logged a model.
        name: registered model, created where missing.
        alias: moved from the version it stood for.

    Raises:
        UserError: no such run, no model that can be served, or a name or alias that MLflow does not take.
    """
    for what, value in (("name", name), ("alias", alias)):
        if not re.fullmatch(r"[A-Za-z0-9_][A-Za-z0-9_.-]*", value):
            raise UserError(f"{what} is {value!r}; use letters, digits, '_', '-' and '.', without spaces")
    registry = Registry(tracking)
    client = registry.client
    with store.asking(registry.uri, f"register the model of run {run_id!r}"):
        model_id = registry.model_of_run(run_id)
        registry.check(Version(run_id, model_id))
        try:
            client.create_registered_model(name)
        except Exception as error:
            if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                raise
        known = [v for v in client.search_model_versions(f"name = '{name}'") if logged_model(v) == model_id]
        if known:
            found = known[0]
        else:
            with _process_wide(registry.uri):
                found = client.create_model_version(name, f"models:/{model_id}", run_id, model_id=model_id)
        client.set_registered_model_alias(name, alias, found.version)
    return Promotion(f"models:/{name}@{alias}", name, str(found.version), alias, model_id, run_id, registered=not known)


@contextmanager
def _process_wide(uri: str) -> Iterator[None]:
    """Make the store the process-wide one: there SQL stores look for a version's model, whatever the client's is."""
    import mlflow

    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(uri)
    try:
        yield
    finally:
        mlflow.set_tracking_uri(None)  # which also takes the variable away
        if before is not None:
            os.environ["MLFLOW_TRACKING_URI"] = before
