"""Tracking in MLflow: one run, one writer (the driver), nothing lost when the server goes away.

Importing this package loads neither mlflow nor matplotlib.
"""

from __future__ import annotations

from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.tracking.resume import SavedRun, saved_run
from crossreg.services.tracking.spool import DiskError, History
from crossreg.services.tracking.sync import SyncReport, sync
from crossreg.services.tracking.tracker import Status, Tracker
from crossreg.services.tracking.ui import serve_ui
from crossreg.services.tracking.uri import check_uri, default_uri, redact, ui_command

__all__ = [
    "DiskError",
    "History",
    "SavedRun",
    "Status",
    "SyncReport",
    "Tracker",
    "TrackingConfig",
    "check_uri",
    "default_uri",
    "redact",
    "saved_run",
    "serve_ui",
    "sync",
    "ui_command",
]
