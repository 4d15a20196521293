"""The examples in the documentation run as they stand."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
_FILE = re.compile(r"```(?:python|yaml)\n# file: (\S+)\n(.*?)```", re.DOTALL)


def write_examples(folder: Path) -> list[str]:
    examples = _FILE.findall((ROOT / "docs" / "plug_in.md").read_text())
    for name, code in examples:
        (folder / name).write_text(code)
    return [name for name, _ in examples]


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "2"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize("name", ["my_loop.py", "my_loss.py", "my_penalty.py"])
def test_example_runs(name: str, tmp_path: Path) -> None:
    assert name in write_examples(tmp_path)
    result = run(tmp_path, sys.executable, name)
    assert result.returncode == 0, result.stderr
    if name == "my_loop.py":
        accuracy = float(re.findall(r"accuracy=([0-9.]+)", result.stdout)[0])
        assert accuracy > 0.9
    if name == "my_penalty.py":
        (strength, smooth), (_, decayed) = re.findall(r"strength ([0-9.]+), test error ([0-9.]+)", result.stdout)
        assert 0.5 < float(strength) < 2  # a grid's best is 1
        assert float(smooth) < float(decayed)


@pytest.mark.slow
@pytest.mark.ray
def test_ones_own_model_trains_on_ray_from_a_yaml_file(tmp_path: Path) -> None:
    write_examples(tmp_path)
    storage = f"local://{tmp_path}/bucket"  # a store that only fsspec knows
    result = run(
        tmp_path, sys.executable, "-m", "jobs.train", "--config", "run.yaml", "--json", "--storage-path", storage
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(result.stdout)
    assert list(report["sigma"]) == ["1"]
    assert report["checkpoint"].startswith(storage)
    assert Path(report["checkpoint"].removeprefix("local://")).is_file()


def test_links_between_pages_lead_somewhere() -> None:
    pages = [ROOT / "README.md", *(ROOT / "docs").rglob("*.md")]
    assert len(pages) > 3
    for page in pages:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"
