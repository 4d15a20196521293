"""Imports only go down the floors, and the library stands on torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["crossreg", "services", "baselines", "jobs"]


def imports(path: Path) -> set[str]:
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name.partition(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.partition(".")[0])
    return found


@pytest.mark.parametrize("floor", [floor for floor in FLOORS if (ROOT / floor).is_dir()])
def test_imports_only_go_down(floor: str) -> None:
    files = list((ROOT / floor).rglob("*.py"))
    assert files
    higher = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests", "benchmarks"}
    for path in files:
        assert not imports(path) & higher, path


def test_ray_and_mlflow_stay_where_they_belong() -> None:
    for path in (ROOT / "crossreg").rglob("*.py"):
        assert not imports(path) & {"ray", "mlflow"}, path
    for path in (ROOT / "services" / "tracking").rglob("*.py"):
        assert "ray" not in imports(path), path
    for path in (ROOT / "services" / "data").rglob("*.py"):
        assert not imports(path) & {"ray", "mlflow"}, path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("crossreg", ["ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib", "pydantic", "safetensors"]),
        ("services.data", ["ray", "mlflow", "torchvision", "sklearn", "pandas"]),
        ("services.tracking", ["ray", "mlflow", "matplotlib"]),
        ("jobs.cli", ["ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib"]),
    ],
)
def test_importing_loads_no_more_than_needed(module: str, unwanted: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    result = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True)
    assert result.stdout.strip() == "[]"
