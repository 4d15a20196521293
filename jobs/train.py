"""Train one model with learned regularization on Ray, tracked in MLflow. `python -m jobs.train --help`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.errors import UserError
from jobs.console import console, run_app
from jobs.options import merge, nest, read_yaml, section, validated
from services.data import known
from services.tracking import TrackingConfig
from services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from services.training.driver import Report, Resume

__all__ = ["app", "train"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

_WHAT, _RHO, _WHERE, _OUT = "What to train", "Learned regularization", "Where to run", "Tracking and output"


def _models() -> str:
    return "mlp, cnn, vgg16, resnet18/34/50, wide_resnet, any torchvision classifier, or package.module:function"


@app.command()
def train(
    context: typer.Context,
    model: Annotated[str | None, typer.Option(help=f"{_models()}. Default: cnn.", rich_help_panel=_WHAT)] = None,
    data: Annotated[
        str | None,
        typer.Option(
            help=f"{', '.join(known())}, or a path: image folder, .npz, .npy, .csv, .parquet.", rich_help_panel=_WHAT
        ),
    ] = None,
    method: Annotated[
        str | None,
        typer.Option(help="crossreg (default), or none: the same training without noise.", rich_help_panel=_WHAT),
    ] = None,
    epochs: Annotated[
        int | None, typer.Option(help="Passes over the training split. Default: 20.", rich_help_panel=_WHAT)
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Training steps, instead of epochs.", rich_help_panel=_WHAT)] = None,
    batch_size: Annotated[
        int | None,
        typer.Option(
            help="Examples in a step over all workers. Default: 128, less for small data.", rich_help_panel=_WHAT
        ),
    ] = None,
    lr: Annotated[
        float | None, typer.Option(help="Learning rate of the weights. Default: 0.001.", rich_help_panel=_WHAT)
    ] = None,
    optimizer: Annotated[str | None, typer.Option(help="adamw (default) or sgd.", rich_help_panel=_WHAT)] = None,
    weight_decay: Annotated[float | None, typer.Option(help="Default: 0.01.", rich_help_panel=_WHAT)] = None,
    augment: Annotated[
        str | None, typer.Option(help="none (default), flip or crop-flip.", rich_help_panel=_WHAT)
    ] = None,
    precision: Annotated[
        str | None, typer.Option(help="float32 (default), bfloat16 or float16.", rich_help_panel=_WHAT)
    ] = None,
    seed: Annotated[
        int | None, typer.Option(help="Fixes split, weights, order and noise. Default: 0.", rich_help_panel=_WHAT)
    ] = None,
    data_root: Annotated[
        Path | None, typer.Option(help="Folder of torchvision's datasets. Default: ./data.", rich_help_panel=_WHAT)
    ] = None,
    download: Annotated[
        bool | None, typer.Option("--download", help="Fetch a missing torchvision dataset.", rich_help_panel=_WHAT)
    ] = None,
    limit: Annotated[
        int | None, typer.Option(help="Use only so many training examples.", rich_help_panel=_WHAT)
    ] = None,
    target: Annotated[str | None, typer.Option(help="Target column of a table.", rich_help_panel=_WHAT)] = None,
    reg_share: Annotated[
        float | None,
        typer.Option(help="Share of the training data held out for rho. Default: 10 %.", rich_help_panel=_RHO),
    ] = None,
    granularity: Annotated[
        str | None, typer.Option(help="One sigma a layer (default) or a unit.", rich_help_panel=_RHO)
    ] = None,
    initial_sigma: Annotated[float | None, typer.Option(help="Where every sigma starts.", rich_help_panel=_RHO)] = None,
    interval: Annotated[
        int | None,
        typer.Option(
            help="Training steps between updates of rho. Default: 30, less in short runs.", rich_help_panel=_RHO
        ),
    ] = None,
    samples: Annotated[
        int | None, typer.Option(help="Noise draws averaged in an update of rho. Default: 3.", rich_help_panel=_RHO)
    ] = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray Train workers (DDP). Default: 1.", rich_help_panel=_WHERE)
    ] = None,
    gpu: Annotated[bool | None, typer.Option("--gpu", help="One GPU a worker.", rich_help_panel=_WHERE)] = None,
    storage_path: Annotated[
        str | None,
        typer.Option(
            help="Checkpoints go here: a folder or a URI (s3://...). Default: ./runs.", rich_help_panel=_WHERE
        ),
    ] = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=_WHERE)
    ] = None,
    max_failures: Annotated[
        int | None, typer.Option(help="Lost workers survived. Default: 3.", rich_help_panel=_WHERE)
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with an MLflow run (its id), or start from a checkpoint (its path).", rich_help_panel=_WHERE
        ),
    ] = None,
    tracking_uri: Annotated[
        str | None,
        typer.Option(help="MLflow store or server. Default: sqlite:///mlflow.db here.", rich_help_panel=_OUT),
    ] = None,
    experiment: Annotated[
        str | None, typer.Option(help="MLflow experiment. Default: <data>-<model>.", rich_help_panel=_OUT)
    ] = None,
    config: Annotated[
        Path | None, typer.Option(help="YAML file of settings; flags win over it.", rich_help_panel=_OUT)
    ] = None,
    as_json: Annotated[
        bool, typer.Option("--json", help="Print one JSON object on stdout.", rich_help_panel=_OUT)
    ] = False,
    verbose: Annotated[
        bool | None, typer.Option("--verbose", help="Show Ray's and MLflow's own messages.", rich_help_panel=_OUT)
    ] = None,
) -> None:
    """Train a model whose regularization is **learned** in the same run, by gradients of held-out loss.

    Learnable noise goes after every normalization layer; its scales (sigma) follow the loss on a held-out
    *regularization split*, the weights follow the training split. Runs on a Ray started here, or on the cluster of
    `RAY_ADDRESS`; everything is recorded in MLflow (`crossreg ui` shows it).

    For example:

    - `crossreg train --data digits`

    - `crossreg train --model cnn --data path/to/images --workers 2 --epochs 40`

    - `crossreg train --model mlp --data fashion-mnist --download`

    - `crossreg train --resume RUN_ID --epochs 60`
    """
    what = nest(
        {
            "model": model,
            "data.name": data,
            "data.root": data_root,
            "data.download": download,
            "data.limit": limit,
            "data.target": target,
            "data.reg_share": reg_share,
            "method": method,
            "noise.granularity": granularity,
            "noise.initial_sigma": initial_sigma,
            "rho.interval": interval,
            "rho.samples": samples,
            "optimizer.name": optimizer,
            "optimizer.lr": lr,
            "optimizer.weight_decay": weight_decay,
            "epochs": epochs,
            "steps": steps,
            "batch_size": batch_size,
            "augment": augment,
            "precision": precision,
            "seed": seed,
        }
    )
    where = nest(
        {
            "workers": workers,
            "gpu": gpu,
            "storage_path": storage_path,
            "checkpoint_every": checkpoint_every,
            "max_failures": max_failures,
            "verbose": verbose,
        }
    )
    tracked = nest({"uri": tracking_uri, "experiment": experiment})
    if config is not None:
        file = read_yaml(config)
        where = merge(section(file, "placement"), where)
        tracked = merge(section(file, "tracking"), tracked)
        if isinstance(file.get("data"), str):
            file["data"] = {"name": file["data"]}
        what = merge(file | {name: section(file, name) for name in ("data", "noise", "rho", "optimizer")}, what)
    report = _run(what, where, tracked, resume, show=not as_json)
    if as_json:
        typer.echo(json.dumps(as_plain(report), allow_nan=False))
    else:
        show(report)


def _run(
    what: dict[str, Any], where: dict[str, Any], tracked: dict[str, Any], resume: str | None, show: bool
) -> Report:
    placement = validated(Placement, where)
    tracking = validated(TrackingConfig, tracked)
    run: Resume | None = None
    start_from: str | None = None
    if resume is not None and _is_path(resume):
        start_from = resume if "://" in resume else str(Path(resume).resolve())
    elif resume is not None:
        from services.training.resume import find_run

        run, recorded = find_run(tracking, resume)
        what = _continued(recorded, what)
    elif "data" not in what or not what["data"].get("name"):
        raise UserError(f"no data given; pass --data, one of {', '.join(known())}, or a path")
    settings = validated(TrainConfig, what)
    from services.training.driver import train as run_training
    from services.training.progress import Bar

    with Bar(console(quiet=not show)) as bar:
        return run_training(settings, placement, tracking, resume=run, start_from=start_from, display=bar)


def _is_path(resume: str) -> bool:
    return "/" in resume or "\\" in resume or resume.endswith(".pt") or Path(resume).exists()


def _continued(recorded: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the recorded configuration with another length; anything else given must equal what was recorded."""
    changed = merge(recorded, given)
    for key in ("epochs", "steps"):
        recorded.pop(key, None)
    fixed = {key: value for key, value in changed.items() if key not in ("epochs", "steps")}
    if "epochs" in given and "steps" not in given:
        changed["steps"] = None
    a, b = (validated(TrainConfig, values).model_dump() for values in (recorded, fixed))
    different = [key for key in a if a[key] != b[key]]
    if different:
        raise UserError(
            f"a resumed run keeps its configuration, but {', '.join(different)} differ from what it was started with; "
            "only --epochs, --steps and where it runs may change. Start a new run from its checkpoint instead"
        )
    return changed


def as_plain(report: Report) -> dict[str, Any]:
    """Return the report as `--json` prints it."""
    plain = dataclasses.asdict(report)
    # JSON has no NaN; a run that diverged has scores of null
    for name in ("test", "test_scaled", "sigma", "compute"):
        plain[name] = {key: value if math.isfinite(value) else None for key, value in plain[name].items()}
    return plain


def show(report: Report) -> None:
    """Print the report as a table, and how to look at the run."""
    from rich.table import Table

    out = console()
    table = Table(title="Test split", title_justify="left")
    table.add_column("")
    for name in report.test:
        table.add_column(name.upper() if len(name) <= 4 else name, justify="right")
    table.add_row("as trained", *(f"{value:.4f}" for value in report.test.values()))
    if report.test_scaled:
        table.add_row("temperature-scaled", *(f"{report.test_scaled[name]:.4f}" for name in report.test))
    out.print(table)
    if report.sigma:
        out.print("learned sigma: " + ", ".join(f"{name} {value:.3g}" for name, value in report.sigma.items()))
    compute = report.compute
    out.print(
        f"compute: {compute['examples']:,.0f} examples, {compute['flops']:.3g} FLOPs, "
        f"{compute['worker_seconds']:.0f} worker-seconds"
    )
    out.print(f"checkpoint: {report.checkpoint}", soft_wrap=True)
    out.print(f"model: {report.model_uri or 'not logged'}", soft_wrap=True)
    out.print(f"run: {report.url or report.run_id}   look at it with: [bold]{report.ui_command}[/bold]", soft_wrap=True)


if __name__ == "__main__":
    run_app(app)
