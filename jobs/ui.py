"""Open MLflow's UI on the store that the runs are in."""

from __future__ import annotations

import contextlib
import signal
from typing import Annotated

import typer

from crossreg.jobs.console import results, run_app

__all__ = ["app", "ui"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def ui(
    tracking_uri: Annotated[
        str | None, typer.Option(help="MLflow store. Default: MLFLOW_TRACKING_URI, else sqlite:///mlflow.db here.")
    ] = None,
    port: Annotated[
        int, typer.Option(min=0, max=65535, help="Port on 127.0.0.1; another free one where it is taken.")
    ] = 5000,
    open_browser: Annotated[bool, typer.Option("--open/--no-open", help="Open the browser.")] = True,
) -> None:
    """Show the runs: starts MLflow's UI on loopback and opens the browser. Ctrl-C ends it."""
    from crossreg.services.tracking import serve_ui
    from crossreg.services.tracking.ui import end

    signal.signal(signal.SIGTERM, signal.default_int_handler)  # which would leave the server behind
    with contextlib.suppress(KeyboardInterrupt):
        process, url = serve_ui(tracking_uri, port)
        try:
            results().print(f"MLflow UI: {url}   (Ctrl-C ends it)")
            if open_browser:
                typer.launch(url)
            process.wait()
        finally:
            end(process)


if __name__ == "__main__":
    run_app(app)
