"""Finding an earlier run by its MLflow id: its configuration and its files."""

from __future__ import annotations

import json
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.tracking import TrackingConfig
from crossreg.services.tracking.params import from_tags
from crossreg.services.tracking.resume import last_steps, looking_up
from crossreg.services.training.driver import Resume
from crossreg.services.training.storage import RunFolder

__all__ = ["find_run"]


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
