"""From a model's URI to its two files; no code of the store is run."""

from __future__ import annotations

import re
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.tracking import TrackingConfig, check_uri, default_uri, redact, store
from crossreg.services.tracking.resume import existing_run

__all__ = ["FILES", "Registry", "Version", "logged_model"]

FILES = ("weights.safetensors", "model.json")
"""All that is ever downloaded of a model."""

ALLOWED = "models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL_ID or a run's id"
_FOLDER = "artifacts"
_MODEL_ID = re.compile(r"m-[0-9a-f]{32}")
_RUN_ID = re.compile(r"[0-9a-f]{32}")
_MISSING = ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE")


@dataclass(frozen=True)
class Version:
    """A model of the store, as a URI was understood at one moment.

    Attributes:
        uri: as it was asked for.
        model_id: of the logged model.
        name: in the registry; None for a model that was asked for by itself.
        version: in the registry, "1", "2", ...; None likewise.
    """

    uri: str
    model_id: str
    name: str | None = None
    version: str | None = None

    def __str__(self) -> str:
        return f"{self.name} version {self.version} ({self.model_id})" if self.name else self.model_id


class Registry:
    """Reads models of one MLflow store.

    Args:
        tracking: names the store, which is also the registry.

    Raises:
        UserError: the store does not answer.
    """

    def __init__(self, tracking: TrackingConfig) -> None:
        self.uri = check_uri(tracking.uri or default_uri())
        self.client = store.connect(self.uri)

    def resolve(self, uri: str) -> Version:
        """Return what a URI stands for now.

        Raises:
            UserError: it has another form, or the store has nothing of that name.
            StoreError: the store does not answer.
        """
        with store.asking(self.uri, f"find model {uri!r}"):
            if _RUN_ID.fullmatch(uri):
                return Version(uri, self.model_of_run(uri))
            target = uri.removeprefix("models:/")
            name, at, alias = target.partition("@")
            _, slash, number = target.partition("/")
            if target == uri:
                raise UserError(f"model {uri!r} is no model's URI; allowed are {ALLOWED}")
            if _MODEL_ID.fullmatch(target):
                return Version(uri, target)
            if at and name and alias and "/" not in target:
                found = self._registered(uri, lambda: self.client.get_model_version_by_alias(name, alias))
            elif slash and number.isdecimal():
                name = target.partition("/")[0]
                found = self._registered(uri, lambda: self.client.get_model_version(name, number))
            else:
                raise UserError(f"model {uri!r} is no model's URI; allowed are {ALLOWED}")
            model_id = logged_model(found)
            if model_id is None:
                raise UserError(
                    f"version {found.version} of {name!r} was not registered from a logged model; "
                    "register it with `crossreg promote`"
                )
            return Version(uri, model_id, name, str(found.version))

    def read(self, version: Version) -> dict[str, bytes]:
        """Return the files of a model by their names: weights and description, nothing else.

        Raises:
            UserError: the model is gone or has no such files.
            StoreError: the store does not answer.
        """
        from mlflow.artifacts import download_artifacts

        location = self._location(version.model_id)
        with store.asking(self.uri, f"read model {version}"), tempfile.TemporaryDirectory() as folder:
            # each by its own name: what else lies beside them stays there
            paths = [
                download_artifacts(
                    f"{location}/{_FOLDER}/{name}", dst_path=folder, tracking_uri=self.uri, registry_uri=self.uri
                )
                for name in FILES
            ]
            return {name: Path(path).read_bytes() for name, path in zip(FILES, paths, strict=True)}

    def check(self, version: Version) -> None:
        """Check that a model has the files that serving needs.

        Raises:
            UserError: it has not.
        """
        self._location(version.model_id)

    def model_of_run(self, run_id: str) -> str:
        """Return the id of the model that a run logged last.

        Raises:
            UserError: no such run, or it logged none.
        """
        run = existing_run(self.client, self.uri, run_id)
        models = run.outputs.model_outputs if run.outputs else []
        if not models:
            raise UserError(
                f"run {run_id!r} has logged no model; a training logs its model at its end (status: {run.info.status})"
            )
        return str(max(models, key=lambda output: output.step).model_id)

    def _registered(self, uri: str, ask: Any) -> Any:
        try:
            return ask()
        except Exception as error:
            if getattr(error, "error_code", "") not in _MISSING:
                raise
            raise UserError(
                f"no model {uri!r} at {redact(self.uri)!r}; `crossreg promote RUN_ID --name NAME` registers one"
            ) from None

    def _location(self, model_id: str) -> str:
        with store.asking(self.uri, f"look up model {model_id!r}"):
            try:
                model = self.client.get_logged_model(model_id)
            except Exception as error:
                if getattr(error, "error_code", "") not in _MISSING:
                    raise
                raise UserError(f"no model {model_id!r} at {redact(self.uri)!r}; check the tracking URI") from None
            found = {entry.path for entry in self.client.list_logged_model_artifacts(model_id, _FOLDER)}
        missing = [name for name in FILES if f"{_FOLDER}/{name}" not in found]
        if missing:
            raise UserError(
                f"model {model_id!r} has no {' and no '.join(missing)}; only models that `crossreg train` logged can "
                "be served, and nothing else in a model's folder is ever opened"
            )
        return str(model.artifact_location).rstrip("/")


def logged_model(version: Any) -> str | None:
    """Return the id of the logged model behind a registered version; SQL stores keep it in the source alone."""
    source = str(version.source).removeprefix("models:/")
    return version.model_id or (source if _MODEL_ID.fullmatch(source) else None)
