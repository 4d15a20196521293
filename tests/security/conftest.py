from __future__ import annotations

from pathlib import Path
from typing import Any, NoReturn

import pytest

from tests.security.throwing import ReachedRayError, Shell


@pytest.fixture
def shell(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Shell:
    """A command line that starts no Ray: what gets that far was accepted."""

    def accepted(*arguments: Any, **options: Any) -> NoReturn:
        raise ReachedRayError(arguments)

    for module in (
        "crossreg.services.training.driver",
        "crossreg.services.comparison.session",
        "crossreg.services.training.runtime",
    ):
        monkeypatch.setattr(f"{module}.start_ray", accepted)
    folder = tmp_path / "here"
    folder.mkdir()
    monkeypatch.chdir(folder)
    for name in ("MLFLOW_TRACKING_URI", "RAY_ADDRESS", "CROSSREG_STORAGE_PATH"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.setenv("CROSSREG_CACHE", str(tmp_path / "here" / "cache"))
    capfd.readouterr()
    return Shell(folder, monkeypatch, capfd)
