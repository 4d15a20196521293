"""Mistakes of `crossreg promote` and `crossreg serve` end in one message and exit code 2, before Ray starts."""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

import pytest

from crossreg.jobs import cli
from crossreg.services.tracking import store

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(autouse=True)
def _folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RAY_ADDRESS", raising=False)


@pytest.fixture(scope="module")
def uri(tmp_path_factory: pytest.TempPathFactory) -> str:
    """A store without a model in it."""
    found = f"sqlite:///{tmp_path_factory.mktemp('store')}/mlflow.db"
    store.connect(found)
    return found


def mistake(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], *arguments: str) -> str:
    monkeypatch.setattr(sys, "argv", ["crossreg", *arguments])
    with pytest.raises(SystemExit) as stop:
        cli.main()
    assert stop.value.code == 2
    captured = capsys.readouterr()
    assert not captured.out
    assert "Traceback" not in captured.err
    return captured.err


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["serve", "digits"], "allowed are models:/NAME@ALIAS"),
        (["serve", "models:/none@champion"], "crossreg promote RUN_ID --name NAME"),
        (["serve", "models:/x@y", "--replicas", "4000"], "4000"),
        (["serve", "models:/x@y", "--samples", "0"], "samples is 0"),
        (["serve", "models:/x@y", "--host", "no.such.host.invalid"], "cannot listen on no.such.host.invalid"),
        (["promote", "0" * 32, "--name", "x"], "no run"),
    ],
)
def test_told(
    arguments: list[str],
    message: str,
    uri: str,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    assert message in mistake(monkeypatch, capsys, *arguments, "--port" if arguments[0] == "serve" else "--alias", "0",
                              "--tracking-uri", uri)  # fmt: skip


def test_a_taken_port_is_told(uri: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        port = str(other.getsockname()[1])
        said = mistake(monkeypatch, capsys, "serve", "models:/x@y", "--port", port, "--tracking-uri", uri)
    assert f"cannot listen on 127.0.0.1:{port}" in said


def test_a_missing_extra_is_told(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setitem(sys.modules, "fastapi", None)  # what Python itself keeps of a module that cannot be imported
    assert 'pip install "crossreg[serve]"' in mistake(monkeypatch, capsys, "serve", "models:/x@y")


def test_the_command_line_loads_nothing_of_it() -> None:
    code = (
        "import sys, crossreg.jobs.cli; print([m for m in ('ray', 'mlflow', 'fastapi', 'uvicorn') if m in sys.modules])"
    )
    out = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True, timeout=120
    )
    assert out.stdout.strip() == "[]"
