"""Serve a model over HTTP on Ray Serve. `python -m crossreg.jobs.serve --help`."""

from __future__ import annotations

import json
import shlex
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.serving.config import ServeConfig
from crossreg.services.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from crossreg.services.serving.driver import Served

__all__ = ["app", "serve"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(ServeConfig)
def serve(
    model_uri: Annotated[
        str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL_ID or a run's id.")
    ],
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A function package.module:function of yours that may build the model; may be repeated."),
    ] = None,
    tracking_uri: flags.TrackingUri = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Answer `POST /predict` with a model's **predictions averaged over noise draws**, and how sure it is.

    The model comes from MLflow: weights and a description are loaded, code from the store never. A version that is
    given the served alias is taken up without dropping a request. Ctrl-C ends it. It has no password: keep it on
    loopback, or put a server that asks for one before it.

    For example:

    - `crossreg promote RUN_ID --name digits`, then `crossreg serve models:/digits@champion`

    - `crossreg serve RUN_ID --port 0 --replicas 1`

    - `crossreg serve models:/digits/3 --samples 64 --max-batch 128`
    """
    (settings,) = flags.settings(given, ServeConfig)
    config = validated(ServeConfig, {**settings, "trusted": tuple(trust or ())})
    tracking = validated(TrackingConfig, {} if tracking_uri is None else {"uri": tracking_uri})
    from crossreg.services.serving.driver import serve as run

    out = console()

    def ready(served: Served) -> None:
        if as_json:
            about = {"url": served.url, "model_id": served.version.model_id, "version": served.version.version}
            print_json(about)
        told = out if as_json else results()
        told.print(f"{served.version} answers at {served.url}   (Ctrl-C ends it)", soft_wrap=True)
        out.print(f"documentation: {served.url}/docs", soft_wrap=True)
        out.print(f"try it: {example(served)}", soft_wrap=True, markup=False)

    run(model_uri, config, tracking, say=lambda text: out.print(text, soft_wrap=True, markup=False), ready=ready)


def example(served: Served) -> str:
    """Return a command that asks for one prediction."""
    if served.row is not None:
        row = json.dumps({"rows": [served.row]}, ensure_ascii=False)
        return f"curl --json {shlex.quote(row)} {served.url}/predict"
    size = 1
    for length in served.input_shape:
        size *= length
    if served.images:
        return f"curl -H 'Content-Type: image/png' --data-binary @IMAGE.png '{served.url}/predict?resize=true'"
    if size > 64:
        return f'curl --json @FILE.json {served.url}/predict   with {{"inputs": [...]}} in the file'
    zeros: list[object] | int = 0
    for length in reversed(served.input_shape):
        zeros = [zeros] * length
    return f"curl --json '{json.dumps({'inputs': [zeros]})}' {served.url}/predict"


if __name__ == "__main__":
    run_app(app)
