"""Send what a run could not send to MLflow while its server was away."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossreg.jobs.console import results, run_app

__all__ = ["app", "sync"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def sync(
    folder: Annotated[Path, typer.Argument(help="The run's tracking folder, as the warning named it.")],
    tracking_uri: Annotated[str | None, typer.Option(help="MLflow store or server, if it moved.")] = None,
) -> None:
    """Send the metrics, figures and status that a run kept on disk; what arrived before is not doubled."""
    from crossreg.services.tracking import sync as send

    report = send(folder, tracking_uri)
    results().print(str(report))


if __name__ == "__main__":
    run_app(app)
