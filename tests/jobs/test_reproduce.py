"""`crossreg reproduce`: help and mistakes; the studies themselves are tested beside this."""

from __future__ import annotations

import subprocess
import sys

import pytest
from typer.testing import CliRunner

from crossreg import UserError
from crossreg.jobs.reproduce import app


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

    from crossreg.studies.run import STUDIES

    command = typer.main.get_command(app)
    assert all(f"- `{name}`: " in (command.help or "") for name in STUDIES)
    (study,) = (parameter for parameter in command.params if parameter.name == "study")
    assert getattr(study, "help", "") == ", ".join(STUDIES)
