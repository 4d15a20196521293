import sys
from pathlib import Path

import pytest
from pydantic import ValidationError

from crossreg.core.errors import UserError
from crossreg.services.tracking import TrackingConfig, check_uri, default_uri, redact, ui_command
from crossreg.services.tracking.uri import without_credentials


def test_the_default_is_a_database_in_the_working_directory(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert default_uri() == f"sqlite:///{tmp_path}/mlflow.db"
    assert check_uri("sqlite:///mlflow.db") == default_uri()
    assert ui_command() == ui_command("sqlite:///mlflow.db") == "crossreg ui"
    assert ui_command("http://host:5000/") == "crossreg ui --tracking-uri http://host:5000"


def test_the_usual_environment_variable_moves_the_default(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    assert default_uri() == "http://host:5000"
    assert ui_command("http://host:5000") == "crossreg ui"


@pytest.mark.parametrize(
    ("uri", "says"),
    [
        ("file:///tmp/mlruns", "names a folder"),
        ("mlruns", "names a folder"),
        ("./mlruns", "names a folder"),
        ("sqlite://", "names no database file"),
        ("sqlite:///:memory:", "names no database file"),
        ("http:///runs", "names no host"),
        ("htp://host:5000", "did you mean 'http'"),
        ("ftp://host", "unknown scheme 'ftp'"),
    ],
)
def test_other_uris_are_refused_with_what_is_allowed(uri, says):
    with pytest.raises(UserError, match=says) as refused:
        check_uri(uri)
    assert "sqlite:///" in str(refused.value)


def test_a_bare_postgresql_uri_gets_mlflows_driver():
    assert check_uri("postgresql://u@h/db") == "postgresql+psycopg2://u@h/db"


@pytest.mark.parametrize(
    ("uri", "shown", "saved"),
    [
        ("http://ann:s3c@ret@host:5000", "http://ann:***@host:5000", "http://host:5000"),
        ("https://s3cret@host/mlflow", "https://***@host/mlflow", "https://host/mlflow"),
        ("postgresql+psycopg2://h/db?password=s3cret&x=1", "postgresql+psycopg2://h/db?password=***&x=1", "postgresql+psycopg2://h/db?x=1"),
        ("sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db", "sqlite:////data/a@b/mlflow.db"),
    ],
)  # fmt: skip
def test_secrets_are_neither_shown_nor_saved(uri, shown, saved):
    assert redact(f"cannot reach {uri}: refused") == f"cannot reach {shown}: refused"
    assert without_credentials(uri) == saved


def test_the_configuration_refuses_and_hides():
    with pytest.raises(ValidationError) as refused:
        TrackingConfig(uri="ftp://ann:s3cret@host")
    assert "unknown scheme" in str(refused.value)
    assert "s3cret" not in str(refused.value)
    assert "s3cret" not in repr(TrackingConfig(uri="http://ann:s3cret@host"))
    with pytest.raises(ValidationError, match="Extra inputs"):
        TrackingConfig(url="http://host")
    assert TrackingConfig(uri="sqlite:///x.db").uri == f"sqlite:///{Path.cwd()}/x.db"


def test_ui_command_can_be_typed_where_the_environment_is_not_activated(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    program = tmp_path / "env" / "bin" / "crossreg"
    program.parent.mkdir(parents=True)
    program.touch()
    monkeypatch.setattr(sys, "executable", str(program.with_name("python")))
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.chdir(tmp_path)
    assert ui_command() == "env/bin/crossreg ui"
