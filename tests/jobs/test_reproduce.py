"""`crossreg reproduce`: help and mistakes; the studies themselves are tested beside this."""

from __future__ import annotations

import io
import subprocess
import sys

import pytest
from rich.console import Console
from typer.testing import CliRunner

from crossreg import UserError
from crossreg.jobs.reproduce import app, tables
from crossreg.studies.run import STUDIES, experiments


def test_the_command_says_what_is_wrong() -> None:
    command = [sys.executable, "-m", "crossreg.jobs.reproduce", "rigde"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "did you mean 'ridge'" in done.stderr


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["ridge", "--scale", "full"], "scale of study 'ridge' is 'full'; leave out --scale"),
        (["learned-optimizer", "--scale", "huge"], "is 'huge'; allowed are small, full"),
    ],
)
def test_a_scale_is_one_that_the_study_has(arguments: list[str], said: str) -> None:
    result = CliRunner().invoke(app, arguments)
    assert isinstance(result.exception, UserError)
    assert said in str(result.exception)


def test_help_names_every_study() -> None:
    import typer

    command = typer.main.get_command(app)
    assert all(f"- `{name}`: " in (command.help or "") for name in STUDIES)
    (study,) = (parameter for parameter in command.params if parameter.name == "study")
    named, _, everything = getattr(study, "help", "").partition("; all: ")
    assert named == ", ".join(STUDIES)
    assert f"from {experiments()[0].name} on" in everything
    assert list(STUDIES)[-len(experiments()) :] == [one.name for one in experiments()]


@pytest.mark.parametrize("cell", ["0.1", "0.2459", "-12.34 ± 10.42"])
@pytest.mark.parametrize("name", STUDIES)
def test_a_table_fits_eighty_columns_and_cuts_no_word(name: str, cell: str) -> None:
    study = STUDIES[name]
    assert 1 <= study.labels < len(study.columns)
    named = dict.fromkeys(list(study.columns)[: study.labels], "cross-regularized and tuned")
    row = dict.fromkeys(study.columns, cell) | named
    console = Console(file=io.StringIO(), width=80, soft_wrap=True)
    found = tables(study.columns, [row, row], study.labels, console.width)
    for table in found:
        console.print(table)
    text = console.file.getvalue()  # type: ignore[attr-defined]
    assert max(map(len, text.splitlines())) <= 80
    assert "…" not in text
    said = set(text.split())
    assert {word for heading in study.columns.values() for word in heading.split()} <= said
    assert {"cross-regularized", "tuned"} <= said
    assert text.count(cell) == 2 * (len(study.columns) - study.labels)
    assert len(tables(study.columns, [row], study.labels, 1000)) == 1
