"""Submitting a job to a Ray cluster. `python -m crossreg.jobs.submit --help`."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossreg.core.errors import UserError
from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app

__all__ = ["app", "submit"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command(context_settings={"ignore_unknown_options": True})
def submit(
    command: Annotated[
        list[str], typer.Argument(help="After `--`: train, compare, replay, reproduce or meta-train, and its options.")
    ],
    address: flags.Address = None,
    wait: Annotated[bool, typer.Option("--wait/--no-wait", help="Follow the job to its end.")] = True,
    working_dir: Annotated[
        Path | None,
        typer.Option(
            help="Folder to upload and run in. Default: this one, if it is a checkout of crossreg; else none."
        ),
    ] = None,
    as_json: flags.AsJson = False,
) -> None:
    """Submit a job to a cluster and follow it; Ctrl-C stops following, not the job.

    The job runs on the cluster's head, in what is uploaded or, without an upload, in what is installed there, and its
    workers wherever there is room. The link to its MLflow run is among the first lines that it writes.

    For example:

    - `crossreg submit -- train --data digits --workers 2`

    - `crossreg submit --address http://head:8265 --no-wait -- compare --data digits --population 4`
    """
    from crossreg.services.cluster.submission import Cluster

    out = console(quiet=as_json)
    cluster = Cluster(address)
    name = cluster.submit(command, working_dir or _checkout())
    # the result of a command that does not wait: the job's name, by which it is found again
    (out if as_json or wait else results()).print(f"submitted [bold]{name}[/bold] to {cluster.address}", soft_wrap=True)
    out.print(f"stop it with [bold]crossreg jobs stop {name}[/bold]", soft_wrap=True)
    if wait:
        try:
            for text in cluster.follow(name):
                if not as_json:
                    typer.echo(text, nl=False)
        except KeyboardInterrupt:
            out.print(f"\nthe job goes on; see [bold]crossreg jobs logs --follow {name}[/bold]", soft_wrap=True)
            raise typer.Exit(130) from None
    job = cluster.job(name)
    if as_json:
        print_json(job)
    elif wait:
        results().print(f"{name}: {job['status'].lower()}")
    if wait and job["status"] != "SUCCEEDED":
        raise typer.Exit(1)


def _checkout() -> Path | None:
    here = Path.cwd()
    if not (here / "jobs" / "train.py").exists():
        return None
    if not (here / "crossreg" / "__init__.py").exists():
        raise UserError(f"{here} has jobs/ but no crossreg/; give --working-dir")
    return here


if __name__ == "__main__":
    run_app(app)
