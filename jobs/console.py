"""How every command talks: its result on stdout, what goes on and what went wrong on stderr, one meaning per exit code.

A job prints with one of two consoles: `results()` for what it was called for (the end report of a training, a list, a
table), as `crossreg jobs list | wc -l` expects it, and `console()` for progress, notes and warnings. With `--json` the
result is the one object on stdout, and neither console prints.
"""

from __future__ import annotations

import json
import logging
import sys
from typing import Any

import typer
from rich.console import Console
from rich.logging import RichHandler

from crossreg.core.errors import UserError
from crossreg.core.plain import finite
from crossreg.services.logs import structured
from crossreg.services.tracking.uri import redact

__all__ = ["console", "print_json", "results", "run_app"]

_log = logging.getLogger(__name__)
_stderr = Console(stderr=True, highlight=False)


def console(quiet: bool = False) -> Console:
    """Return the console for what goes on: progress, notes, warnings; a quiet one prints nothing."""
    return Console(stderr=True, quiet=True) if quiet else _stderr


def results() -> Console:
    """Return the console for the result of a command; piped, it is plain text."""
    return Console(highlight=False, soft_wrap=True)  # a sentence is one line: whoever shows it breaks it


def print_json(found: dict[str, Any] | list[Any]) -> None:
    """Print the one object of `--json` on stdout; JSON has no NaN, so what is not finite is null."""
    typer.echo(json.dumps(finite(found), allow_nan=False))


def run_app(app: typer.Typer) -> None:
    """Run a command line: exit code 0 is success, 2 a mistake in what was given, 1 a failed run, 130 Ctrl-C."""
    if not structured():  # else Ray sets logging up
        logging.basicConfig(
            level=logging.WARNING,
            format="%(message)s" if _stderr.is_terminal else "%(levelname)s: %(message)s",
            # in the log of a job a line is a line, however long
            handlers=[RichHandler(console=_stderr, show_time=False, show_path=False)] if _stderr.is_terminal else None,
        )
        # what this one warns of, the progress bar shows
        logging.getLogger("crossreg.services.training.consumer").setLevel(logging.ERROR)
    app.pretty_exceptions_enable = False
    try:
        app()
    except UserError as error:
        _fail(str(error), 2)
    except RuntimeError as error:
        from crossreg.services.training.errors import TrainingError, TrainingInterruptedError

        if isinstance(error, TrainingInterruptedError):
            _fail(str(error), 130)
        if not isinstance(error, TrainingError):
            raise
        _fail(str(error), 1)


def _fail(message: str, code: int) -> None:
    message = redact(message)  # whoever wrote it: a URI in it may hold a password
    if structured():
        _log.error("%s", message, extra={"exit_code": code})
    else:
        _stderr.print("[bold red]error:[/bold red]", end=" ")
        _stderr.print(message, markup=False, soft_wrap=True)
    sys.exit(code)
