"""Finding an earlier run by its MLflow id, or as the latest one: its configuration and its files."""

from __future__ import annotations

import json
from datetime import datetime
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.tracking import TrackingConfig, default_uri, redact, store
from crossreg.services.tracking.params import from_tags
from crossreg.services.tracking.resume import connect_to, last_steps, looking_up
from crossreg.services.tracking.uri import check_uri
from crossreg.services.training.driver import Resume
from crossreg.services.training.storage import RunFolder

__all__ = ["LATEST", "find_run", "latest_run"]

LATEST = "latest"
"""Names the newest run that can be gone on with."""
_LOOKED_AT = 50


def find_run(tracking: TrackingConfig, run_id: str) -> tuple[Resume, dict[str, Any]]:
    """Return the run to go on with and the configuration it was started with.

    Raises:
        UserError: no such run, or one that `crossreg train` did not make.
    """
    with looking_up(tracking, run_id, "look up") as (_, run):
        tags, logged = run.data.tags, last_steps(run)
    config = from_tags(tags, "crossreg.config")
    if config is None:
        raise UserError(f"run {run_id!r} was not made by `crossreg train`; it carries no configuration to resume")
    found = Resume(
        run_id,
        RunFolder.at(tags["crossreg.storage"]),
        tags.get("crossreg.start_from"),
        logged.get("train/loss", 0),
    )
    return found, json.loads(config)


def latest_run(tracking: TrackingConfig, kind: str, *, finished: bool = False) -> tuple[str, str]:
    """Return the id of the newest run that can be gone on with, and what it is, in words.

    Args:
        tracking: names the store, and perhaps the experiment to look in; else all are looked through.
        kind: the command that made it, "train" or "compare".
        finished: whether one that has finished can be, since more is asked of it now.

    Raises:
        UserError: there is none.
    """
    uri = check_uri(tracking.uri or default_uri())
    client = connect_to(uri, LATEST)
    where = f"at {redact(uri)!r}" if tracking.experiment is None else f"in experiment {tracking.experiment!r}"
    with store.asking(uri, f"look for runs of `crossreg {kind}`"):
        experiments = {one.experiment_id: one.name for one in client.search_experiments()}
        wanted = [one for one, name in experiments.items() if tracking.experiment in (None, name)]
        wish = f"tags.kind = '{kind}'" + ("" if finished else " and attributes.status != 'FINISHED'")
        newest = ["attributes.start_time DESC"]
        found = client.search_runs(wanted, wish, order_by=newest, max_results=_LOOKED_AT) if wanted else []
    for run in found:
        if "crossreg.storage" in run.data.tags and RunFolder.at(run.data.tags["crossreg.storage"]).exists():
            began = datetime.fromtimestamp(run.info.start_time / 1000).isoformat(" ", "minutes")
            name, experiment = run.info.run_name, experiments[run.info.experiment_id]
            return run.info.run_id, f"{name} of {experiment}, begun {began}, {run.info.status.lower()}"
    missing = f"; the files of {len(found)} are gone" if found else ""
    more = "" if finished else "; one that has finished goes on where more is asked of it, such as --epochs or --seeds"
    raise UserError(f"no run of `crossreg {kind}` {where} can be gone on with{missing}{more}")
