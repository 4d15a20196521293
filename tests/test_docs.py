"""The examples in the documentation run as they stand, and its commands, settings and links lead somewhere."""

from __future__ import annotations

import importlib
import importlib.util
import json
import os
import re
import shlex
import subprocess
import sys
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import torch
import typer
import yaml

from benchmarks.__main__ import PARTS
from crossreg.jobs import flags
from crossreg.jobs.cli import JOBS
from crossreg.jobs.options import validated
from crossreg.regularizers.base import Hyperparameter
from crossreg.regularizers.registry import REGISTRY
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.data import DataConfig, load_data
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.assemble import build_trainer
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.resolve import resolve
from crossreg.training.rules import RULES

ROOT = Path(__file__).resolve().parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
_FILE = re.compile(r"```(?:python|yaml)\n# file: (\S+)\n(.*?)```", re.DOTALL)
# reports say what was run by the version that wrote them
_WRITTEN = [page for page in PAGES if page.name != "report.md"]


def examples() -> dict[str, str]:
    """Return the files that pages show, by name."""
    found = [example for page in PAGES for example in _FILE.findall(page.read_text())]
    assert len({name for name, _ in found}) == len(found)
    return dict(found)


def write_examples(folder: Path) -> None:
    for name, code in examples().items():
        (folder / name).write_text(code)


def example_module(name: str, folder: Path) -> ModuleType:
    write_examples(folder)
    spec = importlib.util.spec_from_file_location(name, folder / f"{name}.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run(folder: Path, *command: str) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=280)


@pytest.mark.parametrize(
    "name",
    [
        # it does what the notebook in examples/ does, which has a test too
        pytest.param(name, marks=pytest.mark.thorough) if name == "my_notebook.py" else name
        for name in examples()
        if name.startswith("my_") and name != "my_models.py"
    ],
)
def test_example_runs(name: str, tmp_path: Path) -> None:
    write_examples(tmp_path)
    result = run(tmp_path, sys.executable, name)
    assert result.returncode == 0, result.stderr
    if name == "my_loop.py":
        accuracy = float(re.findall(r"accuracy=([0-9.]+)", result.stdout)[0])
        assert accuracy > 0.9
        assert "noise/00_1" in result.stdout
    if name == "my_trainer.py":
        assert float(result.stdout.split()[0]) > 0.9
    if name == "my_penalty.py":
        (strength, smooth), (_, decayed) = re.findall(r"strength ([0-9.]+), test error ([0-9.]+)", result.stdout)
        assert 0.5 < float(strength) < 2  # a grid's best is 1
        assert float(smooth) < float(decayed)
    if name == "my_regularizers.py":
        first, second = result.stdout.splitlines()
        assert yaml.safe_load(first).keys() == {"noise/00_1", "temperature", "l2", "weight_decay"}
        assert "'l2': (0.01" in second.replace("0.009999", "0.01")


def test_a_regularizer_of_ones_own_is_learned_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = example_module("orthogonality", tmp_path).ORTHOGONALITY
    monkeypatch.setitem(REGISTRY, entry.name, entry)  # as the line in the registry does
    (settings,) = flags.settings({"data": "digits", "learn": ["orthogonality=0.001"]}, TrainConfig)
    config = validated(TrainConfig, {**settings, "model": "mlp", "model_options": {"hidden": 16}, "steps": 8})
    data = load_data(config.data)
    latest = build_trainer(resolve(config, data), data, torch.device("cpu")).fit()
    assert latest["regularizers/orthogonality"] != pytest.approx(0.001, rel=1e-3)


def test_ones_own_data_are_loaded_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_examples(tmp_path)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr(sys, "path", [*sys.path])
    found = load_data(DataConfig(name="own_digits:digits", split_by="writer"))
    assert found.input_shape == (1, 8, 8)
    assert len(found.train) + len(found.reg) + len(found.test) == 1797


def test_a_stopping_rule_of_ones_own_is_asked_for_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rule = example_module("plateau", tmp_path).Plateau
    monkeypatch.setitem(RULES, rule.name, rule)
    (settings,) = flags.settings({"data": "digits", "schedule": "cosine", "stop": "plateau=0.01"}, TrainConfig)
    assert validated(TrainConfig, settings).stopping == {"plateau": 0.01}
    assert not rule(0.01).should_stop([3.0, 2.0, 1.5, 1.2])
    assert rule(0.01).should_stop([3.0, 2.0, 1.999, 1.998, 1.997])


@pytest.mark.slow
@pytest.mark.ray
@pytest.mark.thorough
def test_ones_own_model_trains_on_ray_from_a_yaml_file(tmp_path: Path) -> None:
    write_examples(tmp_path)
    storage = f"local://{tmp_path}/bucket"  # a store that only fsspec knows
    result = run(
        tmp_path,
        sys.executable,
        "-m",
        "crossreg.jobs.train",
        "--config",
        "run.yaml",
        "--json",
        "--storage-path",
        storage,
    )
    assert result.returncode == 0, result.stderr[-2000:]
    report = json.loads(result.stdout)
    assert report["learned"] == ["noise/00_1", "temperature"]
    assert report["regularizers"]["weight_decay"] == 0.05
    assert report["checkpoint"].startswith(storage)
    assert Path(report["checkpoint"].removeprefix("local://")).is_file()


def described(one: Hyperparameter) -> list[str]:
    by = "direct gradient" if one.direct else "following theta" if one.learned_by_rho else "nothing"
    default = "the model's" if one.default is None else f"{one.default:g}"
    low, high = one.range
    return [f"`{one.name}`", one.help, one.unit, default, f"{low:g} to {high:g}, {one.scale}", by]


def test_the_table_of_regularizers_is_the_registry() -> None:
    lines = (DOCS / "regularizers.md").read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith("| name | what it is |"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append([cell.strip() for cell in line.strip("|").split("|")][:-1])  # what it acts on is said there alone
    assert rows == [described(entry.hyperparameter) for entry in REGISTRY.values()]


def test_the_page_of_regularizers_names_every_option_and_rule() -> None:
    text = (DOCS / "regularizers.md").read_text()
    options = text.partition("**Options**")[2].partition("\n## ")[0]
    for entry in REGISTRY.values():
        for option in entry.options:
            assert f"`{entry.name}`" in options
            assert f"`{option}`" in options
    assert all(f"| `{name}` |" in text.partition("## When to stop")[2] for name in RULES)


def settings_on_pages() -> list[tuple[str, str]]:
    """Return the YAML that pages show of crossreg's settings."""
    found = []
    for page in _WRITTEN:
        for text in re.findall(r"```yaml\n(.*?)```", page.read_text(), re.DOTALL):
            if re.search(r"^(data|regularizers|stopping):", text, re.MULTILINE):
                found.append((page.name, text))
    return found


@pytest.mark.parametrize(("page", "text"), settings_on_pages())
def test_settings_are_valid(page: str, text: str, tmp_path: Path) -> None:
    file = tmp_path / "run.yaml"
    file.write_text(text)
    what, where, tracked = flags.settings({}, TrainConfig, Placement, TrackingConfig, file=file)
    if not re.search("^data:", text, re.MULTILINE):  # a part of a file
        what["data"] = {"name": "digits"}
    validated(TrainConfig, what)
    validated(Placement, where)
    validated(TrackingConfig, tracked)


def commands_on_pages() -> list[tuple[str, str]]:
    """Return the commands that pages show as lines of their own, without comments."""
    found = []
    for page in _WRITTEN:
        text = re.sub(r"\\\n\s*", " ", page.read_text())
        for line in re.findall(r"^    (?:\S+=\S+ )*((?:crossreg|python -m) .*)$", text, re.MULTILINE):
            found.append((page.name, re.split(r"\s+#|\s+\|\s", line)[0]))
    return sorted(set(found))


@cache
def job(name: str) -> Any:
    return typer.main.get_command(importlib.import_module(f"crossreg.jobs.{name.replace('-', '_')}").app)


def check_job(name: str, arguments: list[str]) -> None:
    command = job(name)
    while hasattr(command, "resolve_command"):  # a group
        _, command, arguments = command.resolve_command(command.context_class(command), arguments)
    given = command.make_context(name, arguments).params  # parsed, and nothing done
    if name in ("train", "compare") and "list" not in [given.get("methods"), *(given["learn"] or ())]:
        kinds = [CompareConfig, TrainConfig] if name == "compare" else [TrainConfig]
        what = flags.settings({**given, "data": given["data"] or "digits"}, *kinds)[-1]
        validated(TrainConfig, what)
    if name == "submit":
        inner, *rest = given["command"]
        check_job(inner, rest)


@pytest.mark.parametrize(("page", "line"), commands_on_pages())
def test_commands_exist_and_take_their_options(page: str, line: str) -> None:
    words = shlex.split(line)
    if words[0] == "crossreg":
        assert words[1] in JOBS
        check_job(words[1], words[2:])
    elif words[2].startswith("crossreg.jobs."):
        check_job(words[2].removeprefix("crossreg.jobs."), words[3:])
    elif words[2] == "benchmarks":
        assert set(words[3:]) <= set(PARTS)
    elif words[2].startswith("benchmarks."):
        source = (ROOT / words[2].replace(".", "/")).with_suffix(".py").read_text()
        for option in words[3:]:
            assert not option.startswith("--") or f'"{option}"' in source, option
    else:
        assert words[2] in ("pytest", "crossreg.services.cluster.prepare"), line


def test_links_between_pages_lead_somewhere() -> None:
    assert len(PAGES) > 3
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#]+?)(?:#[^)]*)?\)", page.read_text()):
            if "://" not in target:
                assert (page.parent / target).exists(), f"{page.name}: {target}"


def anchors(page: Path) -> set[str]:
    """Return what links can name in a page, as GitHub makes it of headings."""
    text = re.sub(r"```.*?```", "", page.read_text(), flags=re.DOTALL)
    headings = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def test_links_into_pages_name_a_heading() -> None:
    for page in PAGES:
        for target, anchor in re.findall(r"\]\(([^)#:]*)#([^)]*)\)", page.read_text()):
            there = page.parent / target if target else page
            if there.suffix == ".md":
                assert anchor in anchors(there), f"{page.name}: {target}#{anchor}"
