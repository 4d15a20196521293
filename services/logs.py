"""Structured logs: Ray's JSON lines, with the run's id and without secrets.

Ray writes them for any job whose environment says `RAY_LOGGING_CONFIG_ENCODING=JSON`, and adds job, node and worker;
Ray Train writes its workers' lines as JSON always, and adds the rank. What is missing is added here.
"""

from __future__ import annotations

import contextlib
import logging
import os

from crossreg.services.tracking.uri import redact

__all__ = ["bind", "structured"]


def structured() -> bool:
    """Say whether Ray was asked to write JSON lines."""
    return os.environ.get("RAY_LOGGING_CONFIG_ENCODING") == "JSON"


def bind(run_id: str) -> None:
    """Put an MLflow run's id and the logger's name on every line that this process writes from here on.

    A later call takes its place. Call it when Ray's handlers are there: after `ray.init`, or in a worker.
    """
    for handler in logging.getLogger().handlers:
        for earlier in [found for found in handler.filters if isinstance(found, _RunFilter)]:
            handler.removeFilter(earlier)
        handler.addFilter(_RunFilter(run_id))


class _RunFilter(logging.Filter):
    """Adds to a record, and takes secrets out of it; Ray's formatter writes every attribute it does not know."""

    def __init__(self, run_id: str) -> None:
        super().__init__()
        self.run_id = run_id

    def filter(self, record: logging.LogRecord) -> bool:
        record.logger = record.name
        if not hasattr(record, "run_id"):
            record.run_id = self.run_id
        with contextlib.suppress(Exception):  # a message that does not fit its arguments: the handler says so
            record.msg, record.args = record.getMessage(), ()
            if record.exc_info and not record.exc_text:
                record.exc_text = logging.Formatter().formatException(record.exc_info)
        for key, value in vars(record).items():
            if isinstance(value, str):
                setattr(record, key, redact(value))
        return True
