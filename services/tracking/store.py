"""Reaching an MLflow store: a quiet import, one initialisation per SQLite file, experiments, errors."""

from __future__ import annotations

import logging
import os
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext
from pathlib import Path
from typing import Any

from filelock import FileLock, Timeout

from crossreg.core.errors import UserError
from crossreg.services.tracking.spool import DiskError
from crossreg.services.tracking.uri import ALLOWED, check_uri, redact, sqlite_path

__all__ = ["StoreError", "artifact_root", "asking", "connect", "get_or_create_experiment", "quiet_mlflow"]

_ENVIRONMENT = {
    # The uploader retries for ever by itself; MLflow's own seven retries of 120 s would hold its thread, and
    # a retried create_run makes a second run.
    "MLFLOW_HTTP_REQUEST_MAX_RETRIES": "0",
    "MLFLOW_HTTP_REQUEST_TIMEOUT": "15",
    "MLFLOW_DISABLE_TELEMETRY": "true",
    # Standard output belongs to `--json`.
    "MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT": "true",
    # In a folder with a uv.lock MLflow would run `uv export` and copy the project into every model.
    "MLFLOW_UV_AUTO_DETECT": "false",
    "GIT_PYTHON_REFRESH": "quiet",
    "MLFLOW_ENABLE_ARTIFACTS_PROGRESS_BAR": "false",
}
_INIT_SECONDS = 120.0
_SQLITE = b"SQLite format 3\0"


def quiet_mlflow(verbose: bool = False) -> Any:
    """Import MLflow with short network waits and without its INFO lines, and return the module."""
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    import mlflow

    if not verbose:
        for name in ("mlflow", "alembic"):
            logging.getLogger(name).setLevel(logging.WARNING)
        # It warns about every model logged from an environment without pip, which uv's are.
        logging.getLogger("mlflow.utils.environment").setLevel(logging.ERROR)
    return mlflow


class StoreError(UserError):
    """The store does not answer or refuses; trying again later may help."""


@contextmanager
def asking(uri: str, what: str = "open the MLflow store") -> Iterator[None]:
    """Turn a failure of the store in the block into one `StoreError` that names the URI and the remedy."""
    try:
        yield
    except (UserError, DiskError):
        raise
    except Exception as error:
        remedy = _remedy(uri, error)
        if remedy is None:
            raise
        cause = redact(str(error)).strip()
        raise StoreError(f"cannot {what} at {redact(uri)!r}: {remedy} ({cause})") from None


def _remedy(uri: str, error: Exception) -> str | None:
    """Return what to do about the store's failure, None for an error that is not the store's."""
    from mlflow.exceptions import MlflowException
    from sqlalchemy.exc import SQLAlchemyError

    text, file = str(error), sqlite_path(uri)
    if isinstance(error, ModuleNotFoundError):
        return f"its driver is not installed; `pip install {error.name}`."
    if not isinstance(error, MlflowException | SQLAlchemyError | OSError):
        return None
    if "out-of-date database schema" in text:
        return f"the database is of another MLflow version; back it up, then `mlflow db upgrade {redact(uri)}`."
    if re.search(r"error code 40[13]|UNAUTHENTICATED|PERMISSION_DENIED", text):
        return "it refused the request; set MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD (or _TOKEN)."
    if isinstance(error, MlflowException) and 400 <= error.get_http_status_code() < 500:
        return "it refused the request."
    if file is not None:
        return f"check that {file.parent} is a writable folder and {file.name} an SQLite database ({ALLOWED})."
    return f"start the server, or give another URI ({ALLOWED})."


def connect(uri: str, *, verbose: bool = False) -> Any:
    """Return an `MlflowClient` of a store that answers; one process alone initialises a fresh SQLite file.

    Raises:
        UserError: the URI is not allowed, or names a file of another kind.
        StoreError: the file cannot be written, or the server does not answer.
    """
    uri = check_uri(uri)
    file = sqlite_path(uri)
    with asking(uri):
        if file is not None and file.is_dir():
            raise IsADirectoryError(f"{file} is a folder")
        if file is not None:
            _check_file(file)
        mlflow = quiet_mlflow(verbose)
        # Eight processes that create one fresh SQLite store at once all fail in alembic, and already the client's
        # constructor creates it.
        lock = FileLock(f"{file}.lock", timeout=_INIT_SECONDS) if file else nullcontext()
        try:
            with lock:
                client = mlflow.MlflowClient(tracking_uri=uri, registry_uri=uri)
                client.search_experiments(max_results=1)
        except Timeout:
            raise UserError(
                f"another process has held {file}.lock for {_INIT_SECONDS:.0f} s; end it and try again."
            ) from None
    return client


def _check_file(file: Path) -> None:
    """Refuse another file before a lock is laid beside it, and before MLflow tries ten times to open it."""
    if not file.exists():
        return
    with file.open("rb") as content:
        start = content.read(len(_SQLITE))
    if start not in (b"", _SQLITE):
        raise UserError(
            f"cannot open {file}: is {file.name} an SQLite database? Give another; one that is not there is created."
        )


def artifact_root(uri: str) -> Path | None:
    """Return the absolute artifact folder beside a SQLite store; other stores choose their own (None)."""
    file = sqlite_path(check_uri(uri))
    return None if file is None else file.parent / "mlartifacts"


def get_or_create_experiment(client: Any, uri: str, name: str) -> str:
    """Return the id of the experiment, created where missing (by several processes at once, too).

    Raises:
        UserError: an experiment of that name was deleted, or the store refuses the name.
    """
    root = artifact_root(uri)
    with asking(uri, f"open experiment {name!r}"):
        for attempt in range(5):
            experiment = client.get_experiment_by_name(name)
            if experiment is None:
                try:
                    return str(client.create_experiment(name, artifact_location=root.as_uri() if root else None))
                except Exception as error:
                    if getattr(error, "error_code", "") != "RESOURCE_ALREADY_EXISTS":
                        raise
                    time.sleep(0.1 * attempt)
            elif experiment.lifecycle_stage != "active":
                raise UserError(
                    f"experiment {name!r} was deleted from {redact(uri)!r}; choose another, or restore it: "
                    f"`mlflow experiments restore --experiment-id {experiment.experiment_id}`."
                )
            else:
                return str(experiment.experiment_id)
        raise RuntimeError("the experiment was created and deleted by others meanwhile")
