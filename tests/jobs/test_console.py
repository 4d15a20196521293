"""What a command was called for is on stdout, all else on stderr; with --json stdout is one object."""

from __future__ import annotations

import ast
import json
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn

import pytest

from crossreg.jobs import cli

ROOT = Path(__file__).resolve().parents[2]
Ran = Callable[..., tuple[str, str]]


def no_constant(name: str) -> NoReturn:
    raise AssertionError(f"{name} is not JSON")


@pytest.fixture
def ran(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Ran:
    """Run a command that succeeds, in a folder of its own; return stdout and stderr."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)

    def run(*arguments: str) -> tuple[str, str]:
        monkeypatch.setattr(sys, "argv", ["crossreg", *arguments])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        captured = capsys.readouterr()
        assert not stop.value.code, captured.err
        return captured.out, captured.err

    return run


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["doctor"], "tracking uri"),
        (["train", "--learn", "list"], "weight_decay"),
        (["compare", "--learn", "list"], "weight_decay"),
        (["compare", "--methods", "list"], "tuned-search"),
        (["data", "iris"], "setosa"),
    ],
)
def test_a_result_is_on_stdout_and_one_object_with_json(arguments: list[str], words: str, ran: Ran) -> None:
    out, err = ran(*arguments)
    assert words in out
    assert not err
    plain, err = ran(*arguments, "--json")
    assert isinstance(json.loads(plain, parse_constant=no_constant), dict)
    assert not err


def test_a_sentence_of_a_result_is_one_line_however_narrow_the_terminal(
    ran: Ran, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("COLUMNS", "20")
    out, _ = ran("data", "iris")
    assert "an input is 4 of float32, from" in out


def test_all_jobs_print_by_the_same_consoles() -> None:
    for path in sorted((ROOT / "jobs").glob("*.py")):
        if path.name != "console.py":
            text = path.read_text()
            names = {node.id for node in ast.walk(ast.parse(text)) if isinstance(node, ast.Name)}
            assert not names & {"Console", "print"}, f"{path.name} prints past jobs/console.py"
            assert "echo(json" not in text, f"{path.name}: print_json knows what to do with NaN"
