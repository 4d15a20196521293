"""A whole cluster as processes of one machine. `python -m crossreg.jobs.cluster --help`."""

from __future__ import annotations

import shlex
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app

if TYPE_CHECKING:
    from crossreg.services.cluster import LocalCluster

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="""Run a whole cluster on this machine: PostgreSQL, an artifact store, MLflow, a Ray head and nodes.

    The same parts as `docker/compose.yaml`, as processes that listen on loopback, with passwords and a token of their
    own. For example:

    - `crossreg cluster up --nodes 2`

    - `eval "$(crossreg cluster env)"`

    - `crossreg submit -- train --data digits --workers 2`

    - `crossreg cluster down`
    """,
)

Folder = Annotated[Path, typer.Option(help="Data, logs and secrets of the cluster; short, as Ray's sockets lie in it.")]
_DEFAULT = Path("/tmp/crossreg")


@app.command()
def up(
    folder: Folder = _DEFAULT,
    nodes: Annotated[int, typer.Option(min=1, help="Ray nodes beside the head.")] = 2,
    cpus: Annotated[int, typer.Option(min=1, help="CPUs of each node.")] = 1,
    isolated: Annotated[
        bool, typer.Option("--isolated", help="Give every node a network namespace of its own (Linux, root).")
    ] = False,
    as_json: flags.AsJson = False,
) -> None:
    """Start what does not run yet, and say how to use it. Data of an earlier cluster in the folder are kept."""
    from crossreg.services.cluster import ClusterConfig, LocalCluster

    cluster = LocalCluster.up(folder, ClusterConfig(nodes, cpus, isolated), console(quiet=as_json).print)
    if as_json:
        print_json(_described(cluster))
        return
    out = results()
    out.print(f"dashboard: {cluster.dashboard}   MLflow: {cluster.mlflow} (user `crossreg`)")
    out.print(f'use it:    [bold]eval "$(crossreg cluster env --folder {folder})"[/bold]')
    out.print("           [bold]crossreg submit -- train --data digits --workers 2[/bold]")
    out.print(f"stop it:   [bold]crossreg cluster down --folder {folder}[/bold]")


@app.command()
def env(folder: Folder = _DEFAULT) -> None:
    """Print the environment of somebody who uses the cluster, its passwords too: `eval "$(crossreg cluster env)"`."""
    from crossreg.services.cluster import LocalCluster

    for name, value in LocalCluster.at(folder).client_environment().items():
        typer.echo(f"export {name}={shlex.quote(value)}")


@app.command()
def status(folder: Folder = _DEFAULT, as_json: flags.AsJson = False) -> None:
    """Say which parts run, and where their logs are."""
    from crossreg.services.cluster import LocalCluster

    cluster = LocalCluster.at(folder)
    if as_json:
        print_json(_described(cluster))
        return
    for name, process in cluster.processes.items():
        results().print(f"{name:15} {'runs' if process.alive else 'does not run':13} {process.log}")


@app.command()
def down(folder: Folder = _DEFAULT) -> None:
    """Stop all parts. Runs, models and checkpoints stay in the folder; `up` goes on with them."""
    from crossreg.services.cluster import LocalCluster

    stopped = LocalCluster.at(folder).down(console().print)
    kept = f"data are kept in {folder}: [bold]crossreg cluster up --folder {folder}[/bold] goes on with them"
    results().print(f"{len(stopped)} parts stopped; {kept}" if stopped else f"nothing ran; {kept}")


def _described(cluster: LocalCluster) -> dict[str, object]:
    return {
        "folder": str(cluster.folder),
        "dashboard": cluster.dashboard,
        "mlflow": cluster.mlflow,
        "artifact_store": cluster.endpoint,
        "parts": {name: process.alive for name, process in cluster.processes.items()},
    }


if __name__ == "__main__":
    run_app(app)
