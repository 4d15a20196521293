"""What is said before Ray starts."""

from __future__ import annotations

from pathlib import Path

import pytest
import ray

from crossreg import UserError
from crossreg.services.training.config import Placement
from crossreg.services.training.runtime import start_ray


def test_what_the_workers_would_import_by_mistake_is_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    if ray.is_initialized():  # left by another file, whose driver was this process
        ray.shutdown()
    monkeypatch.chdir(tmp_path)
    (tmp_path / "crossreg").mkdir()
    (tmp_path / "crossreg" / "__init__.py").touch()
    (tmp_path / "queue.py").touch()
    with pytest.raises(UserError, match=r"hides the package 'crossreg' from them; rename it"):
        start_ray(Placement())
    assert f"{tmp_path}/queue.py hides the module 'queue' from Ray's workers" in caplog.text
