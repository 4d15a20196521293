"""Jobs of a Ray cluster: listed, read, stopped. `python -m crossreg.jobs.jobs --help`."""

from __future__ import annotations

import time
from typing import Annotated

import typer

from crossreg.core.errors import UserError
from crossreg.jobs import flags
from crossreg.jobs.console import print_json, results, run_app

__all__ = ["app"]

app = typer.Typer(
    add_completion=False,
    rich_markup_mode="markdown",
    no_args_is_help=True,
    help="List, read and stop the jobs of a cluster (`crossreg submit` starts them).",
)

Name = Annotated[str, typer.Argument(help="The job's id, as `crossreg jobs list` shows it.")]


@app.command("list")
def show(address: flags.Address = None, as_json: flags.AsJson = False) -> None:
    """List all jobs, the newest first."""
    from crossreg.services.cluster.submission import PACKAGE, Cluster

    found = Cluster(address).jobs()
    if as_json:
        print_json(found)
        return
    out = results()
    if not found:
        out.print("no jobs yet; submit one with [bold]crossreg submit -- train --data digits[/bold]")
    for job in found:
        seconds = "" if job["seconds"] is None else f"{job['seconds']:.0f} s"
        command = job["command"].removeprefix(f"python -m {PACKAGE}.")
        line = f"{job['id']:30} {job['status'].lower():9} {job['started'] or '':19} {seconds:>7}  {command}"
        out.print(line, markup=False)


@app.command()
def logs(
    name: Name,
    follow: Annotated[bool, typer.Option("--follow", "-f", help="Go on until the job ends.")] = False,
    address: flags.Address = None,
) -> None:
    """Print what a job has written, on stdout."""
    from crossreg.services.cluster.submission import Cluster

    cluster = Cluster(address)
    for text in cluster.follow(name) if follow else [cluster.logs(name)]:
        typer.echo(text, nl=False)


@app.command()
def stop(
    name: Name,
    wait: Annotated[float, typer.Option(min=0, help="Seconds to wait for its end.")] = 90,
    address: flags.Address = None,
    as_json: flags.AsJson = False,
) -> None:
    """Stop a job: a training writes a last checkpoint, closes its MLflow run and can be gone on with (`--resume`)."""
    from crossreg.services.cluster.submission import ENDED, Cluster

    cluster = Cluster(address)
    before = cluster.job(name)
    if before["status"] in ENDED:
        raise UserError(f"job {name!r} has ended already: {before['status'].lower()}")
    cluster.stop(name)
    deadline = time.monotonic() + wait
    while (job := cluster.job(name))["status"] not in ENDED and time.monotonic() < deadline:
        time.sleep(0.5)
    if as_json:
        print_json(job)
    else:
        results().print(f"{name}: {job['status'].lower()}")


if __name__ == "__main__":
    run_app(app)
