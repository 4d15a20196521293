"""Register a run's model and let an alias stand for it. `python -m crossreg.jobs.promote --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.tracking.config import TrackingConfig

__all__ = ["app", "promote"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def promote(
    run_id: Annotated[
        str, typer.Argument(help="The MLflow run that logged the model, as `crossreg train` printed it.")
    ],
    name: Annotated[str, typer.Option(help="Registered model; made where it does not exist.")],
    alias: Annotated[str, typer.Option(help="Moves to this version.")] = "champion",
    tracking_uri: flags.TrackingUri = None,
    as_json: flags.AsJson = False,
) -> None:
    """Make a run's model a **version** in MLflow's registry and let an **alias** stand for it.

    Whoever serves the alias takes the new version up by itself. Promoting an older run again moves the alias back.

    For example:

    - `crossreg promote RUN_ID --name digits`

    - `crossreg promote RUN_ID --name digits --alias challenger`
    """
    from crossreg.services.serving.promotion import promote as register

    tracking = validated(TrackingConfig, {} if tracking_uri is None else {"uri": tracking_uri})
    done = register(tracking, run_id, name, alias)
    command = f"crossreg serve {done.uri}"
    if as_json:
        print_json({**done.as_dict(), "command": command})
        return
    out = results()
    how = "registered as" if done.registered else "already registered as"
    out.print(f"{done.model_id} of run {run_id}: {how} version {done.version} of {name}")
    out.print(f"{done.uri}   serve it with: [bold]{command}[/bold]")


if __name__ == "__main__":
    run_app(app)
