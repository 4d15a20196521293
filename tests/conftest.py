"""All tests: what they start does not outlive them, and files that take long are begun first."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests import processes

ROOT = Path(__file__).resolve().parents[1]

LONGEST = (
    "tests/baselines/test_methods.py",
    "tests/services/search/test_scheduler.py",
    "tests/services/training/test_recovery.py",
    "tests/jobs/test_compare.py",
    "tests/services/serving/test_service.py",
    "tests/test_docs.py",
    "tests/services/search/test_run.py",
    "tests/test_processes.py",
    "tests/security/test_secrets.py",
    "tests/services/comparison/test_recording.py",
    "tests/services/meta_training/test_meta_training.py",
)
"""Files in the order in which they are begun, before all others; with `--no-loadscope-reorder` xdist keeps to it."""


def pytest_configure(config: pytest.Config) -> None:
    """Guard this process; with xdist, each worker too."""
    processes.guard()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the longest files: one that is left for the end keeps one worker busy and the others waiting."""
    places = {ROOT / name: place for place, name in enumerate(LONGEST)}
    items.sort(key=lambda item: places.get(item.path, len(places)))


@pytest.fixture(autouse=True, scope="module")
def _no_store_is_left_behind() -> Iterator[None]:
    """Hold that a file leaves the variable of the store as it was: processes of the next one would write there."""
    before = os.environ.get("MLFLOW_TRACKING_URI")
    yield
    assert os.environ.get("MLFLOW_TRACKING_URI") == before
