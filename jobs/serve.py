"""Serve a model over HTTP on Ray Serve. `python -m jobs.serve --help`."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Annotated

import typer

from jobs import flags
from jobs.console import console, run_app
from jobs.options import validated
from services.serving.config import ServeConfig
from services.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from services.serving.driver import Served

__all__ = ["app", "serve"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def serve(
    model_uri: Annotated[
        str, typer.Argument(help="models:/NAME@ALIAS, models:/NAME/VERSION, models:/MODEL_ID or a run's id.")
    ],
    host: Annotated[str, typer.Option(help="Address to listen on.")] = "127.0.0.1",
    port: Annotated[int, typer.Option(help="0 takes any free port.")] = 8000,
    replicas: Annotated[
        int | None, typer.Option(help="Processes that hold the model. Default: 2, on one CPU 1.")
    ] = None,
    samples: Annotated[int, typer.Option(help="Noise draws averaged in a prediction.")] = 16,
    seed: Annotated[int, typer.Option(help="Fixes the draws: the same input gets the same answer.")] = 0,
    max_batch: Annotated[int, typer.Option(help="Examples in one forward pass.")] = 32,
    batch_wait_ms: Annotated[float, typer.Option(help="How long a replica waits to fill a batch.")] = 2.0,
    max_examples: Annotated[int, typer.Option(help="Examples in one request.")] = 256,
    max_request_mb: Annotated[float, typer.Option(help="Size of one request's body, 10^6 bytes.")] = 8.0,
    poll_seconds: Annotated[float, typer.Option(help="Between two looks at the alias; 0: never again.")] = 10.0,
    trust: Annotated[
        list[str] | None,
        typer.Option(help="A function package.module:function of yours that may build the model; may be repeated."),
    ] = None,
    tracking_uri: flags.TrackingUri = None,
    as_json: flags.AsJson = False,
    verbose: flags.Verbose = None,
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
    from services.training.runtime import available_cpus

    config = validated(
        ServeConfig,
        {
            "host": host,
            "port": port,
            "replicas": min(2, available_cpus()) if replicas is None else replicas,
            "samples": samples,
            "seed": seed,
            "max_batch": max_batch,
            "batch_wait_ms": batch_wait_ms,
            "max_examples": max_examples,
            "max_request_mb": max_request_mb,
            "poll_seconds": poll_seconds,
            "trusted": tuple(trust or ()),
            "verbose": bool(verbose),
        },
    )
    tracking = validated(TrackingConfig, {} if tracking_uri is None else {"uri": tracking_uri})
    from services.serving.driver import serve as run

    out = console()

    def ready(served: Served) -> None:
        if as_json:
            about = {"url": served.url, "model_id": served.version.model_id, "version": served.version.version}
            typer.echo(json.dumps(about))
        out.print(f"{served.version} answers at {served.url}   (Ctrl-C ends it)", soft_wrap=True)
        out.print(f"documentation: {served.url}/docs", soft_wrap=True)
        out.print(f"try it: {example(served)}", soft_wrap=True, markup=False)

    run(model_uri, config, tracking, say=lambda text: out.print(text, soft_wrap=True, markup=False), ready=ready)


def example(served: Served) -> str:
    """Return a command that asks for one prediction."""
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
