"""The `crossreg` command: dispatches to the jobs, each of which is also `python -m crossreg.jobs.<name>`.

A job is imported when it is run, so that the list of them is there at once.
"""

from __future__ import annotations

import ast
import importlib
from pathlib import Path
from typing import Annotated, Any

import typer
import typer.core

from crossreg.jobs.console import run_app

__all__ = ["app", "main"]

JOBS = (
    "train",
    "explain",
    "data",
    "predict",
    "compare",
    "replay",
    "reproduce",
    "meta-train",
    "ui",
    "demo",
    "doctor",
    "sync",
    "submit",
    "jobs",
    "promote",
    "serve",
    "cluster",
)


def _module(name: str) -> str:
    return name.replace("-", "_")


class _Job(typer.core.TyperCommand):
    """A job that is not imported yet: its name, and what it is for."""

    def __init__(self, name: str) -> None:
        text = ast.get_docstring(ast.parse((Path(__file__).parent / f"{_module(name)}.py").read_text())) or ""
        super().__init__(name, help=text.partition(" `python")[0].rstrip())

    def make_context(self, info_name: str | None, args: list[str], parent: Any = None, **extra: Any) -> Any:
        """Import the job, and let it take over."""
        command = typer.main.get_command(importlib.import_module(f"crossreg.jobs.{_module(self.name or '')}").app)
        command.name = self.name
        return command.make_context(info_name, args, parent, **extra)


class _Jobs(typer.core.TyperGroup):
    """The jobs by name."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.commands = {name: _Job(name) for name in JOBS}


app = typer.Typer(
    cls=_Jobs,
    add_completion=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Train once, get the regularization learned: cross-regularization on Ray, tracked in MLflow.",
)


@app.callback(invoke_without_command=True)
def version(
    show: Annotated[bool, typer.Option("--version", help="Show the version.", is_eager=True)] = False,
) -> None:
    """Hold the options of the command itself."""
    if show:
        import crossreg

        typer.echo(crossreg.__version__)
        raise typer.Exit


def main() -> None:
    """Run the command line."""
    run_app(app)


if __name__ == "__main__":
    main()
