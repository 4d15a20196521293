"""The `crossreg` command: dispatches to the jobs, each of which is also `python -m jobs.<name>`."""

from __future__ import annotations

from typing import Annotated

import typer

from jobs import cluster, compare, demo, doctor, jobs, promote, replay, reproduce, serve, submit, sync, train, ui
from jobs.console import run_app

__all__ = ["app", "main"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="Train once, get the regularization learned: cross-regularization on Ray, tracked in MLflow.",
)
for job in (train, compare, replay, reproduce, ui, demo, doctor, sync, submit, promote, serve):
    app.command(name=job.__name__.rpartition(".")[2])(getattr(job, job.__name__.rpartition(".")[2]))

for group in (jobs, cluster):
    app.add_typer(group.app, name=group.__name__.rpartition(".")[2])


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
