"""Sending what an earlier process left in a spool folder."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.services.tracking import store
from crossreg.services.tracking.outbox import Outbox
from crossreg.services.tracking.resume import connect_to, existing_run, last_steps, saved_run
from crossreg.services.tracking.spool import Spool
from crossreg.services.tracking.uploader import Uploader
from crossreg.services.tracking.uri import check_uri

__all__ = ["SyncReport", "sync"]


@dataclass(frozen=True)
class SyncReport:
    """What `sync` did.

    Attributes:
        run_id: the run.
        complete: whether nothing waits any more.
        bytes_sent: bytes of the spool that the store took in this call.
        waiting: artifacts that still wait.
        error: the store's last refusal, None where there was none.
    """

    run_id: str
    complete: bool
    bytes_sent: int
    waiting: tuple[str, ...]
    error: str | None


def sync(spool_dir: Path, uri: str | None = None, *, timeout: float = 60.0, verbose: bool = False) -> SyncReport:
    """Send the points, tags, end status and artifacts that wait in a spool folder; safe to repeat.

    Args:
        spool_dir: the folder that a run recorded into.
        uri: where to; None is the URI the run was tracked at (credentials are not saved: set
            MLFLOW_TRACKING_USERNAME and MLFLOW_TRACKING_PASSWORD, or give the URI).
        timeout: seconds.
        verbose: let MLflow write its INFO lines.

    Raises:
        UserError: the folder holds no run, another process writes to it, or the store cannot be used.
    """
    directory = local_path(spool_dir, "folder").absolute()
    saved = saved_run(directory)
    if saved is None:
        raise UserError(f"{directory} holds no tracked run (no run.json in it); give a run's spool folder.")
    uri = check_uri(uri or saved.uri)
    client = connect_to(uri, saved.run_id, verbose=verbose)
    with store.asking(uri, f"send run {saved.run_id!r}"):
        known = last_steps(existing_run(client, uri, saved.run_id))
    spool, outbox = Spool(directory), Outbox(directory)
    try:
        before = spool.sent
        uploader = Uploader(spool, outbox, client, saved.run_id, known)
        uploader.start()
        complete = uploader.drain(timeout)
        return SyncReport(saved.run_id, complete, spool.sent - before, tuple(outbox.waiting()), uploader.error)
    finally:
        spool.close()
