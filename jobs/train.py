"""Train one model with learned regularization on Ray, tracked in MLflow. `python -m jobs.train --help`."""

from __future__ import annotations

import dataclasses
import json
import logging
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from jobs import flags
from jobs.console import console, run_app
from jobs.options import merge, validated
from services.data import known
from services.logs import structured
from services.tracking import TrackingConfig
from services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from services.training.driver import Report, Resume

__all__ = ["app", "train"]

_log = logging.getLogger(__name__)

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def train(
    context: typer.Context,
    model: flags.Model = None,
    data: flags.Data = None,
    method: Annotated[
        str | None,
        typer.Option(help="crossreg (default), or none: the same training without noise.", rich_help_panel=flags.WHAT),
    ] = None,
    epochs: flags.Epochs = None,
    steps: flags.Steps = None,
    batch_size: flags.BatchSize = None,
    lr: flags.LearningRate = None,
    optimizer: flags.Optimizer = None,
    weight_decay: flags.WeightDecay = None,
    augment: flags.Augment = None,
    precision: flags.Precision = None,
    seed: flags.Seed = None,
    data_root: flags.DataRoot = None,
    download: flags.Download = None,
    limit: flags.Limit = None,
    target: flags.Target = None,
    reg_share: flags.RegShare = None,
    granularity: flags.Granularity = None,
    initial_sigma: flags.InitialSigma = None,
    noise: flags.Noise = None,
    learn: flags.Learn = None,
    estimator: flags.Estimator = None,
    interval: flags.Interval = None,
    samples: flags.Samples = None,
    workers: Annotated[
        int | None, typer.Option(help="Ray Train workers (DDP). Default: 1.", rich_help_panel=flags.WHERE)
    ] = None,
    min_workers: Annotated[
        int | None,
        typer.Option(help="Go on with so few while a cluster has no room for all.", rich_help_panel=flags.WHERE),
    ] = None,
    gpu: flags.Gpu = None,
    storage_path: flags.StoragePath = None,
    checkpoint_every: Annotated[
        int | None, typer.Option(help="Steps between checkpoints.", rich_help_panel=flags.WHERE)
    ] = None,
    max_failures: flags.MaxFailures = None,
    hang_timeout: Annotated[
        int | None,
        typer.Option(
            help="Seconds without a step until a worker counts as lost. Default: 600.", rich_help_panel=flags.WHERE
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with an MLflow run (its id), or start from a checkpoint (its path).",
            rich_help_panel=flags.WHERE,
        ),
    ] = None,
    tracking_uri: flags.TrackingUri = None,
    experiment: flags.Experiment = None,
    config: flags.ConfigFile = None,
    as_json: flags.AsJson = False,
    verbose: flags.Verbose = None,
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
    what, where, tracked = flags.settings(context.params, config)
    report = _run(what, where, tracked, resume, show=not as_json)
    if as_json:
        typer.echo(json.dumps(as_dict(report), allow_nan=False))
    elif structured():
        _log.info("result", extra=as_dict(report))
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

    with Bar(console(quiet=structured() or not show)) as bar:
        return run_training(settings, placement, tracking, resume=run, start_from=start_from, display=bar)


def _is_path(resume: str) -> bool:
    return "/" in resume or "\\" in resume or resume.endswith(".pt") or local_path(resume, "--resume").exists()


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


def as_dict(report: Report) -> dict[str, Any]:
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
