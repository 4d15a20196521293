"""Compare cross-regularization with tuned searches and plain trainings. `python -m jobs.compare --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.core.errors import UserError
from jobs import flags
from jobs.console import console, run_app
from jobs.options import nest, section, validated
from services.data import known
from services.tracking import TrackingConfig
from services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from services.comparison.compare import CompareConfig, Comparison
    from services.training.storage import RunFolder

__all__ = ["app", "compare"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

_COMPARE = "What to compare"


@app.command()
def compare(
    context: typer.Context,
    methods: Annotated[
        str | None,
        typer.Option(
            help="Comma-separated; `--methods list` describes them all. Default: crossreg,none,pbt.",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    population: Annotated[
        int | None, typer.Option(help="Trials of a search. Default: 8.", rich_help_panel=_COMPARE)
    ] = None,
    seeds: Annotated[
        int | None,
        typer.Option(help="How many seeds, counted from --seed on. Default: 3.", rich_help_panel=_COMPARE),
    ] = None,
    budget: Annotated[
        str | None,
        typer.Option(
            help="Compute of a search, comma-separated: matched (that of one crossreg run), full (population times "
            "that), or a factor. Default: matched,full.",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    unit: Annotated[
        str | None,
        typer.Option(
            help="What budgets are counted in: flops (default), examples or worker_seconds.",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    select_on: Annotated[
        str | None,
        typer.Option(
            help="Score of the regularization split that searches choose by: nll (default) or accuracy.",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    evaluations: Annotated[
        int | None,
        typer.Option(
            help="Intervals a run is cut into; PBT exploits and explores at each. Default: 20.",
            rich_help_panel=_COMPARE,
        ),
    ] = None,
    model: flags.Model = None,
    data: flags.Data = None,
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
    gpu: flags.Gpu = None,
    storage_path: flags.StoragePath = None,
    max_failures: flags.MaxFailures = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with a comparison (its MLflow run id); what has ended is not run again.",
            rich_help_panel=flags.WHERE,
        ),
    ] = None,
    tracking_uri: flags.TrackingUri = None,
    experiment: flags.Experiment = None,
    config: flags.ConfigFile = None,
    as_json: flags.AsJson = False,
    verbose: flags.Verbose = None,
) -> None:
    """Answer whether **one** cross-regularized run is as good as a tuned search, and what each cost.

    Every method trains the same model on the same splits with the same optimizer and schedule; searches get the
    compute you say, counted to the last evaluation that they choose by. The answer is a report (HTML and Markdown,
    in MLflow's parent run and in the storage folder) with intervals over seeds, and every trial is an MLflow run.

    For example:

    - `crossreg compare --data digits --model mlp --seeds 3`

    - `crossreg compare --data fashion-mnist --limit 2000 --model cnn --methods crossreg,none,pbt,random-search`

    - `crossreg compare --methods list`

    - `crossreg compare --resume RUN_ID`
    """
    if methods == "list":
        _list_methods()
        return
    what, where, tracked = flags.settings(context.params, config)
    asked = nest(
        {
            "methods": methods and _split(methods),
            "population": population,
            "seeds": seeds,
            "budgets": budget and _split(budget),
            "unit": unit,
            "select_on": select_on,
        }
    )
    asked = {**section(what, "compare"), **asked}
    if evaluations is not None:
        what["evaluations"] = evaluations
    result = _run(what, where, tracked, asked, resume, show=not as_json)
    if as_json:
        typer.echo(json.dumps(as_dict(result), allow_nan=False))
    else:
        show(result)


def _run(
    what: dict[str, Any],
    where: dict[str, Any],
    tracked: dict[str, Any],
    asked: dict[str, Any],
    resume: str | None,
    show: bool,
) -> Comparison:
    from services.comparison.compare import CompareConfig
    from services.comparison.compare import compare as run_comparison
    from services.comparison.progress import CompareBar

    placement = validated(Placement, where)
    tracking = validated(TrackingConfig, tracked)
    folder: RunFolder | None = None
    if resume is not None:
        folder, settings = _earlier(tracking, resume, what, asked)
    else:
        if not what.get("data", {}).get("name"):
            raise UserError(f"no data given; pass --data, one of {', '.join(known())}, or a path")
        # more intervals than a training's own: a search decides at each; on the way, 2,000 test examples draw a curve
        training = validated(TrainConfig, {"evaluations": 20, "interim_test": 2000, **what})
        settings = validated(CompareConfig, {**asked, "training": training})
    with CompareBar(console(quiet=not show)) as bar:
        return run_comparison(settings, placement, tracking, folder=folder, display=bar)


def _earlier(
    tracking: TrackingConfig, run_id: str, what: dict[str, Any], asked: dict[str, Any]
) -> tuple[RunFolder, CompareConfig]:
    """Return the folder of an earlier comparison and what it compared; only methods and budgets may be added."""
    from services.comparison.compare import CompareConfig
    from services.tracking.resume import run_tags
    from services.training.storage import RunFolder

    tags = run_tags(tracking, run_id)
    if "crossreg.compare" not in tags:
        raise UserError(f"run {run_id!r} is no comparison; give the id of a parent run that `crossreg compare` made")
    recorded = json.loads(tags["crossreg.compare"])
    fixed = sorted({*what, *asked} - {"methods", "budgets", "seeds"})
    if fixed:
        raise UserError(
            f"a comparison that goes on keeps its settings, but {', '.join(fixed)} is given; "
            "only --methods, --budget and --seeds may be"
        )
    folder = RunFolder.at(tags["crossreg.storage"])
    if not folder.exists():
        raise UserError(f"the files of comparison {run_id} are not at {folder.location}, so there is nothing to go on")
    return folder, validated(CompareConfig, {**recorded, **asked})


def _split(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _list_methods() -> None:
    from rich.console import Console
    from rich.table import Table

    from baselines import METHODS

    table = Table("method", "what it is", "budget", box=None)
    for name, method in METHODS.items():
        table.add_row(name, method.summary, "as --budget says" if method.searches else _own(method.own_budget))
    Console(highlight=False).print(table)


def _own(budget: str) -> str:
    return "one run" if budget == "matched" else f"{budget} runs"


def as_dict(result: Comparison) -> dict[str, Any]:
    """Return the comparison as `--json` prints it."""
    return {
        "run_id": result.run_id,
        "report": str(result.report),
        "ui_command": result.ui_command,
        **result.summary.as_dict(),
    }


def show(result: Comparison) -> None:
    """Print the table of scores and the sentences, and how to look at the rest."""
    from rich.console import Console

    out = Console(highlight=False)
    out.print(result.summary.as_table())
    for sentence in result.summary.sentences:
        out.print(f"• {sentence}")
    out.print(f"report: {Path(result.report)}", soft_wrap=True)
    where = result.url or result.run_id
    out.print(f"run: {where}   look at it with: [bold]{result.ui_command}[/bold]", soft_wrap=True)
    out.print(
        f"its methods alone: search for  tags.comparison = '{result.run_id}' and tags.kind = 'method'", soft_wrap=True
    )


if __name__ == "__main__":
    run_app(app)
