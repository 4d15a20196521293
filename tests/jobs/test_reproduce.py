"""`crossreg reproduce`: help and mistakes; the studies themselves are tested beside this."""

from __future__ import annotations

import subprocess
import sys


def test_the_command_says_what_is_wrong() -> None:
    command = [sys.executable, "-m", "jobs.reproduce", "rigde"]
    done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=120)
    assert done.returncode == 2
    assert "did you mean 'ridge'" in done.stderr


def test_help_names_every_study() -> None:
    import typer

    from jobs.reproduce import app
    from studies.run import STUDIES

    command = typer.main.get_command(app)
    assert all(f"- `{name}`: " in (command.help or "") for name in STUDIES)
    (study,) = (parameter for parameter in command.params if parameter.name == "study")
    assert getattr(study, "help", "") == ", ".join(STUDIES)
