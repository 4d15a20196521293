"""Imports only go down the floors, and down the order inside two of them; the library stands on torch alone."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
FLOORS = ["crossreg", "services", "baselines", "studies", "jobs"]
# inside a floor, from the bottom up: a part imports itself and those before it
ORDERS = {
    "crossreg": [
        "core",
        "optimizers",
        "inputs",
        "models",
        "losses",
        "batches",
        "regularizers",
        "estimators",
        "regularizer",
        "reference",
        "prediction",
        "training",
        "meta",
    ],
    "services": [
        "settings",
        "style",
        "data",
        "tracking",
        "logs",
        "cluster",
        "training",
        "meta_training",
        "serving",
        "prediction",
        "search",
        "comparison",
    ],
}


def imports(path: Path) -> set[str]:
    """Return the full names of the modules that a file imports, wherever in it."""
    found = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
    return found


def floor_of(module: str) -> str:
    """Return the floor that a module is on, or the package that it belongs to."""
    package, _, rest = module.partition(".")
    part = rest.partition(".")[0]
    return part if package == "crossreg" and part in FLOORS else package


def tops(path: Path) -> set[str]:
    """Return the floors that a file imports, and packages of others. Imports of names of `crossreg` are its own."""
    return {floor_of(name) for name in imports(path) if name != "crossreg"}


def files(folder: str) -> Iterator[Path]:
    found = sorted((ROOT / folder).rglob("*.py"))
    assert found
    yield from found


@pytest.mark.parametrize("floor", FLOORS)
def test_imports_only_go_down(floor: str) -> None:
    higher = set(FLOORS[FLOORS.index(floor) + 1 :]) | {"tests", "benchmarks"}
    # studies and baselines stand side by side
    higher |= {"baselines"} if floor == "studies" else set()
    for path in files(floor):
        if path != ROOT / "crossreg" / "__main__.py":  # the command
            assert not tops(path) & higher, path


@pytest.mark.parametrize("floor", ORDERS)
def test_parts_of_a_floor_import_only_those_below(floor: str) -> None:
    order = ORDERS[floor]
    parts = {
        path.stem
        for path in (ROOT / floor).iterdir()
        if path.suffix == ".py" or ((path / "__init__.py").exists() and not path.is_symlink())
    }
    assert parts - {"__init__", "__main__"} == set(order)
    for path in files(floor):
        part = path.relative_to(ROOT / floor).parts[0].removesuffix(".py")
        if part in ("__init__", "__main__"):
            continue
        package = "crossreg" if floor == "crossreg" else f"crossreg.{floor}"
        above = {f"{package}.{name}" for name in order[order.index(part) + 1 :]}
        found = {name for name in imports(path) if any(name == one or name.startswith(f"{one}.") for one in above)}
        assert not found, f"{path}: {found}"


def test_no_baseline_imports_another() -> None:
    names = {path.stem for path in (ROOT / "baselines").glob("*.py")} - {"__init__"}
    for path in files("baselines"):
        if path.stem != "__init__":
            assert "baselines" not in tops(path), path
    assert names


@pytest.mark.parametrize("floor", FLOORS)
def test_tests_of_a_floor_import_no_higher_one(floor: str) -> None:
    higher = set(FLOORS[FLOORS.index(floor) + 1 :])
    for path in (ROOT / "tests" / floor).rglob("*.py"):
        assert not tops(path) & higher, path


def test_ray_and_mlflow_stay_where_they_belong() -> None:
    for folder, unwanted in {
        "crossreg": {"ray", "mlflow"},
        "studies": {"ray", "mlflow"},
        "services/data": {"ray", "mlflow"},
        "services/tracking": {"ray"},
        "services/comparison/report": {"ray", "mlflow"},
    }.items():
        for path in files(folder):
            assert not tops(path) & unwanted, path


@pytest.mark.parametrize(
    ("module", "unwanted"),
    [
        ("crossreg", ["torch", "numpy", "ray", "mlflow", "pydantic"]),
        (
            "crossreg.training.trainer",
            ["ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib", "pydantic", "safetensors"],
        ),
        ("crossreg.services.data", ["torch", "ray", "mlflow", "torchvision", "sklearn", "pandas"]),
        ("crossreg.services.tracking", ["torch", "ray", "mlflow", "matplotlib"]),
        ("crossreg.services.style", ["torch", "ray", "mlflow", "matplotlib"]),
        ("crossreg.services.training.config", ["torch", "ray", "mlflow", "torchvision", "sklearn", "pandas"]),
        ("crossreg.services.training.mailbox", ["torch", "numpy", "mlflow", "pydantic"]),
        ("crossreg.services.comparison.report", ["ray", "mlflow", "matplotlib"]),
        ("crossreg.jobs.cli", ["torch", "numpy", "ray", "mlflow", "sklearn", "pandas", "matplotlib"]),
        ("crossreg.jobs.train", ["torch", "ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib"]),
        ("crossreg.jobs.data", ["torch", "ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib"]),
        ("crossreg.jobs.predict", ["torch", "ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib"]),
        ("crossreg.jobs.compare", ["torch", "ray", "mlflow", "torchvision", "sklearn", "pandas", "matplotlib"]),
    ],
)
def test_importing_loads_no_more_than_needed(module: str, unwanted: list[str]) -> None:
    code = f"import sys, {module}; print([m for m in {unwanted!r} if m in sys.modules])"
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=True, timeout=120
    )
    assert result.stdout.strip() == "[]"


def test_the_names_that_the_library_offers_are_there() -> None:
    """They are looked up when they are used, so a wrong home would show late."""
    import crossreg

    for name in crossreg.__all__:
        assert getattr(crossreg, name) is not None
    named = {name for names in crossreg._HOMES.values() for name in names} | set(crossreg._MODULES)
    assert named == set(crossreg.__all__)
    source = ast.parse((ROOT / "crossreg" / "__init__.py").read_text())
    checked = next(node for node in source.body if isinstance(node, ast.If))
    for_type_checkers = {a.name for n in checked.body if isinstance(n, ast.ImportFrom) for a in n.names}
    assert for_type_checkers == named
