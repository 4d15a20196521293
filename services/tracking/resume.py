"""Which run a spool folder belongs to, and catching up with what the store knows of it."""

from __future__ import annotations

import json
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from pydantic import BaseModel, ConfigDict, ValidationError

from crossreg.core.errors import UserError
from crossreg.services.tracking import store
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.tracking.params import clip
from crossreg.services.tracking.spool import Spool, replace_file
from crossreg.services.tracking.uri import check_uri, default_uri, redact, sqlite_path

__all__ = [
    "SavedRun",
    "catch_up",
    "connect_to",
    "existing_run",
    "last_steps",
    "looking_up",
    "metric_history",
    "read_artifact",
    "run_tags",
    "saved_run",
]


class SavedRun(BaseModel):
    """The `run.json` of a spool folder.

    Attributes:
        uri: the tracking URI without credentials.
        run_id: the MLflow run.
        experiment_id: its experiment.
        name: the run's name.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    uri: str
    run_id: str
    experiment_id: str
    name: str = ""

    def save(self, directory: Path) -> None:
        """Write it into a spool folder."""
        replace_file(directory / "run.json", json.dumps(self.model_dump(), indent=1).encode())


def saved_run(directory: Path) -> SavedRun | None:
    """Return the run that a spool folder belongs to, None for a folder that has none.

    Raises:
        UserError: the folder's `run.json` is damaged.
    """
    path = directory / "run.json"
    try:
        return SavedRun.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except OSError as error:
        raise UserError(f"{path} cannot be read: {error.strerror}") from None
    except ValidationError as error:
        raise UserError(
            f"{path} is not a run record ({error.error_count()} problems); remove it to start afresh."
        ) from None


def existing_run(client: Any, uri: str, run_id: str) -> Any:
    """Return the run from the store.

    Raises:
        UserError: there is no such run, or it was deleted.
    """
    try:
        run = client.get_run(run_id)
    except Exception as error:
        if getattr(error, "error_code", "") not in ("RESOURCE_DOES_NOT_EXIST", "INVALID_PARAMETER_VALUE"):
            raise
        raise UserError(
            f"no run {clip(run_id, 80)!r} at {redact(uri)!r}; check the tracking URI, or start a new run."
        ) from None
    if run.info.lifecycle_stage != "active":
        raise UserError(f"run {run_id!r} was deleted; `mlflow runs restore --run-id {run_id}` brings it back.")
    return run


def last_steps(run: Any) -> dict[str, int]:
    """Return the store's last step of every metric of a run."""
    # RunData.metrics has values only; the alternative, get_metric_history of every key, loads the whole run.
    return {metric.key: metric.step for metric in run.data._metric_objs}


def catch_up(client: Any, run_id: str, spool: Spool, known: Mapping[str, int]) -> None:
    """Copy into the spool the points that only the store has.

    With the spool file gone (another machine), this rebuilds both the high-water marks and the history. The
    copies keep their timestamps, so nothing is doubled.
    """
    marks = spool.marks
    for key, last in known.items():
        mark = marks.get(key)
        if mark is not None and mark >= last:
            continue
        for point in sorted(client.get_metric_history(run_id, key), key=lambda point: point.step):
            spool.append_metrics({key: point.value}, point.step, point.timestamp)


def connect_to(uri: str, run_id: str, *, verbose: bool = False) -> Any:
    """Return a client of the store that holds a run; unlike `store.connect` it creates none where there is none.

    Raises:
        UserError: there is no such store, or it does not answer.
    """
    file = sqlite_path(check_uri(uri))
    if file is not None and not file.exists():
        raise UserError(
            f"no run {clip(run_id, 80)!r} at {redact(uri)!r}, where there is no store at all; check the tracking URI."
        )
    return store.connect(uri, verbose=verbose)


@contextmanager
def looking_up(tracking: TrackingConfig, run_id: str, doing: str) -> Iterator[tuple[Any, Any]]:
    """Yield a client of the store that is configured, and the run.

    Args:
        tracking: names the store.
        run_id: the run.
        doing: what for, for an error's text: "look up", "read metrics of".

    Raises:
        UserError: the store does not answer, before or within the block, or has no such run.
    """
    uri = check_uri(tracking.uri or default_uri())
    client = connect_to(uri, run_id)
    with store.asking(uri, f"{doing} run {run_id!r}"):
        yield client, existing_run(client, uri, run_id)


def run_tags(tracking: TrackingConfig, run_id: str) -> dict[str, str]:
    """Return the tags of a run.

    Raises:
        UserError: the store does not answer, or has no such run.
    """
    with looking_up(tracking, run_id, "look up") as (_, run):
        return dict(run.data.tags)


def metric_history(
    tracking: TrackingConfig, run_id: str, prefixes: tuple[str, ...]
) -> tuple[dict[str, list[tuple[int, float]]], dict[str, float]]:
    """Return steps and values of a run's metrics whose names begin so, and the latest value of every metric.

    Raises:
        UserError: the store does not answer, or has no such run.
    """
    with looking_up(tracking, run_id, "read metrics of") as (client, run):
        latest = dict(run.data.metrics)
        points = {
            name: sorted((point.step, point.value) for point in client.get_metric_history(run_id, name))
            for name in latest
            if name.startswith(prefixes)
        }
    return points, latest


def read_artifact(tracking: TrackingConfig, run_id: str, name: str) -> bytes:
    """Return the content of an artifact of a run.

    Raises:
        UserError: the store does not answer, or has no such run or artifact.
    """
    with (
        looking_up(tracking, run_id, f"read {name!r} of") as (client, _),
        tempfile.TemporaryDirectory() as folder,
    ):
        if name not in {entry.path for entry in client.list_artifacts(run_id)}:
            raise UserError(f"run {run_id!r} has no artifact {name!r}; it may not have ended")
        return Path(client.download_artifacts(run_id, name, folder)).read_bytes()
