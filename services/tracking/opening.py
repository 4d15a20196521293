"""Creating an MLflow run, or going on with one: everything that needs the store to answer once."""

from __future__ import annotations

import getpass
import sys
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.tracking import store
from crossreg.services.tracking.environment import environment_params, environment_tags
from crossreg.services.tracking.params import MAX_TAG, clip, flatten, split_changed
from crossreg.services.tracking.resume import SavedRun, catch_up, existing_run, last_steps, saved_run
from crossreg.services.tracking.spool import Spool
from crossreg.services.tracking.uri import without_credentials

__all__ = ["OpenRun", "create_run", "open_spool", "reopen_run"]

_MOST_PARAMS = 100  # that MLflow takes in a request


@dataclass(frozen=True)
class OpenRun:
    """A run that exists in the store and has its spool open.

    Attributes:
        uri: the tracking URI in use, credentials included.
        client: an `MlflowClient` of it.
        saved: the run.
        spool: its spool.
        known: the store's last step of every metric at the time of opening.
        tags: names of the tags that it had then.
    """

    uri: str
    client: Any
    saved: SavedRun
    spool: Spool
    known: Mapping[str, int] = field(default_factory=dict)
    tags: Collection[str] = ()


def open_spool(directory: Path, resume_run_id: str | None) -> Spool:
    """Open a spool folder for a run.

    Raises:
        UserError: the folder belongs to another run or is in use by another process.
    """
    saved = saved_run(directory)
    if saved is not None and saved.run_id != resume_run_id:
        wanted = f" for run {resume_run_id!r}" if resume_run_id else " for a new run"
        raise UserError(f"{directory} already holds run {saved.run_id!r}; resume it, or choose another folder{wanted}.")
    return Spool(directory)


def create_run(
    client: Any,
    uri: str,
    spool: Spool,
    experiment: str,
    name: str,
    params: Mapping[str, Any],
    tags: Mapping[str, str],
) -> OpenRun:
    """Create a run with its parameters and tags; its id is on disk before anything else can fail."""
    experiment_id = store.get_or_create_experiment(client, uri, experiment)
    source = {
        "mlflow.source.name": Path(sys.argv[0]).name or "python",
        "mlflow.source.type": "LOCAL",
        "mlflow.user": _user(),
    }
    # MLflow shows tags in the order in which they came, and the job's say most
    all_tags = {**tags, **source, **environment_tags(), **tags}
    with store.asking(uri, "create a run"):
        run = client.create_run(experiment_id, run_name=name, tags=_clipped(all_tags))
        saved = SavedRun(uri=without_credentials(uri), run_id=run.info.run_id, experiment_id=experiment_id, name=name)
        saved.save(spool.directory)
        _log_params(client, saved.run_id, {**flatten(params), **environment_params()})
    return OpenRun(uri, client, saved, spool)


def reopen_run(
    client: Any, uri: str, spool: Spool, run_id: str, params: Mapping[str, Any], tags: Mapping[str, str]
) -> OpenRun:
    """Go on with a run: new parameters are added; what differs is noted as a tag `resumed.<name>`."""
    with store.asking(uri, f"go on with run {run_id!r}"):
        run = existing_run(client, uri, run_id)
        known = last_steps(run)
        catch_up(client, run_id, spool, known)
        saved = SavedRun(
            uri=without_credentials(uri),
            run_id=run_id,
            experiment_id=run.info.experiment_id,
            name=run.info.run_name,
        )
        saved.save(spool.directory)
        new, changed = split_changed({**flatten(params), **environment_params()}, run.data.params)
        _log_params(client, run_id, new)
    # The run keeps the commit that it began with.
    new_tags, changed_tags = split_changed(environment_tags(), run.data.tags)
    resumed = {f"resumed.{key}": value for key, value in {**changed_tags, **changed}.items()}
    # Through the spool, after what an earlier process left there: perhaps the status that it ended with.
    spool.append({"status": "RUNNING"})
    spool.append({"tags": _clipped({**new_tags, **resumed, **tags})})
    return OpenRun(uri, client, saved, spool, known, run.data.tags)


def _clipped(tags: Mapping[str, str]) -> dict[str, str]:
    return {key: clip(str(value), MAX_TAG) for key, value in tags.items()}


def _log_params(client: Any, run_id: str, params: dict[str, str]) -> None:
    from mlflow.entities import Param

    entities = [Param(key, value) for key, value in params.items()]
    for first in range(0, len(entities), _MOST_PARAMS):
        client.log_batch(run_id, params=entities[first : first + _MOST_PARAMS])


def _user() -> str:
    try:
        return getpass.getuser()
    except (OSError, KeyError):
        return "unknown"  # a container's bare user id has no name
