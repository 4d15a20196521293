"""The thread that sends a spool to MLflow, for as long as it takes."""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Mapping
from typing import Any

from crossreg.services.tracking.outbox import Outbox
from crossreg.services.tracking.params import clip
from crossreg.services.tracking.spool import DiskError, Spool
from crossreg.services.tracking.uri import redact

__all__ = ["Uploader"]

_BATCH = 1000  # MLflow's limit of metrics a request
_TICK_SECONDS, _LAST_TICK_SECONDS = 1.0, 10.0
_SHARE = 0.005  # of a core, most that sending takes; with `--workers 0` a training step waits for it
_FIRST_RETRY_SECONDS = 0.5
_LAST_RETRY_SECONDS = 10.0
_CLOSING_RETRY_SECONDS = 1.0
_log = logging.getLogger(__name__)


class Uploader:
    """Sends the lines of a spool in order, then the outbox, and retries with backoff while the store is away.

    Every second, and less often where that would take over half a percent of this process's time (an SQLite file, which
    MLflow writes itself), but at least every ten seconds.

    Args:
        spool: what to send.
        outbox: files to send when no line waits.
        client: an `MlflowClient` of the store.
        run_id: the run.
        known: the store's last step of every key when this spool was opened; older points are there already,
            perhaps recorded again by another machine under another timestamp, and are not sent.
    """

    def __init__(self, spool: Spool, outbox: Outbox, client: Any, run_id: str, known: Mapping[str, int]) -> None:
        self._spool, self._outbox, self._client, self._run_id, self._known = (
            spool,
            outbox,
            client,
            run_id,
            known,
        )
        self._closing = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name="crossreg-tracking", daemon=True)
        self.error: str | None = None

    def start(self) -> None:
        """Start the thread."""
        self._thread.start()

    def drain(self, timeout: float) -> bool:
        """Send what is left, for at most `timeout` seconds; return whether everything arrived."""
        self._closing.set()
        self._thread.join(timeout)
        self._abandoned.set()
        return not self._thread.is_alive() and not self._spool.waiting and not self._outbox.waiting()

    def _run(self) -> None:
        delay = _FIRST_RETRY_SECONDS
        while not self._abandoned.is_set():
            began = time.thread_time()
            try:
                while self.send_lines() and not self._abandoned.is_set():
                    pass
                self._outbox.send(self._client, self._run_id)
            except Exception as error:
                self._away(error)
                if isinstance(error, DiskError) and self._closing.is_set():
                    return
                self._pause(delay)
                delay = min(2 * delay, _LAST_RETRY_SECONDS)
                continue
            self._back()
            delay = _FIRST_RETRY_SECONDS
            if not self._closing.is_set():
                rest = (time.thread_time() - began) / _SHARE
                self._closing.wait(min(max(rest, _TICK_SECONDS), _LAST_TICK_SECONDS))
            elif not self._spool.waiting and not self._outbox.waiting():
                return

    def _pause(self, delay: float) -> None:
        if self._closing.is_set():
            self._abandoned.wait(min(delay, _CLOSING_RETRY_SECONDS))
        else:
            self._closing.wait(delay)

    def _away(self, error: Exception) -> None:
        # requests puts a screenful of causes into one message; its beginning says which call failed.
        cause = clip(redact(" ".join(str(error).split())) or type(error).__name__, 160)
        if self.error is None and isinstance(error, DiskError):
            _log.warning("this run's records are not sent to MLflow, as they are not safe on disk (%s)", cause)
        elif self.error is None:
            folder = self._spool.directory
            _log.warning("MLflow does not take this run's records; they wait in %s (%s)", folder, cause)
        self.error = cause

    def _back(self) -> None:
        if self.error is not None:
            _log.warning("MLflow answers again; everything recorded meanwhile is sent")
        self.error = None

    def send_lines(self) -> bool:
        """Send the next batch of points, or the next line of another kind; return whether there was one."""
        start = end = self._spool.sent
        points: list[Any] = []
        for entry, after in self._spool.entries(start):
            if "tags" in entry or "status" in entry:
                if not points:
                    self._send_other(entry)
                    end = after
                break
            found = self._points(entry)
            if points and len(points) + len(found) > _BATCH:
                break
            points += found
            end = after
        if end == start:
            return False
        # What the store has must never be newer than this disk: a resumed run would record it a second time.
        self._spool.fsync()
        for first in range(0, len(points), _BATCH):
            self._client.log_batch(self._run_id, metrics=points[first : first + _BATCH])
        self._spool.mark_sent(end)
        return True

    def _points(self, entry: dict[str, Any]) -> list[Any]:
        from mlflow.entities import Metric

        step = entry.get("step", 0)
        return [
            Metric(key, value, entry["time"], step)
            for key, value in entry.get("metrics", {}).items()
            if step > self._known.get(key, step - 1)
        ]

    def _send_other(self, entry: dict[str, Any]) -> None:
        from mlflow.entities import RunTag

        if "tags" in entry:
            self._client.log_batch(self._run_id, tags=[RunTag(key, value) for key, value in entry["tags"].items()])
        elif entry["status"] == "RUNNING":
            self._client.update_run(self._run_id, status="RUNNING")
        else:
            self._client.set_terminated(self._run_id, status=entry["status"], end_time=entry["time"])
