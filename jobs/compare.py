"""Compare cross-regularization with tuned searches and plain trainings. `python -m crossreg.jobs.compare --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.core.errors import UserError
from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import merge, validated
from crossreg.jobs.train import list_regularizers
from crossreg.services.comparison.config import CompareConfig
from crossreg.services.data import known, load_data
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from crossreg.services.comparison.compare import Comparison
    from crossreg.services.training.storage import RunFolder

__all__ = ["app", "compare", "run"]

# a trial is one process, and goes on by its records
_NOT_TAKEN = ("workers", "min_workers", "checkpoint_every", "hang_timeout")

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(CompareConfig, TrainConfig, Placement, TrackingConfig, leave_out=_NOT_TAKEN)
def compare(
    evaluations: Annotated[
        int | None,
        typer.Option(
            help="Intervals a run is cut into; PBT exploits and explores at each. Default: 20.",
            rich_help_panel="What to compare",
        ),
    ] = None,
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with a comparison (its MLflow run id; `latest`: the newest that has not finished); what has "
            "ended is not run again.",
            rich_help_panel=flags.WHERE,
        ),
    ] = None,
    config: flags.ConfigFile = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Answer whether **one** cross-regularized run is as good as a tuned search, and what each cost.

    Every method trains the same model on the same splits; searches get the compute you say, counted to the last
    evaluation that they choose by. Where the cross-regularized run finds its length, the others train one network with
    a cosine schedule; --schedule cosine gives all of them one length. The answer is a report (HTML and Markdown,
    in MLflow's parent run and in the storage folder) with intervals over seeds, and every trial is an MLflow run.

    For example:

    - `crossreg compare --data digits --model mlp --seeds 3`

    - `crossreg compare --data people.csv --target renewed --methods crossreg,tuned-search --population 16 --budget 10`

    - `crossreg compare --data digits --model mlp --schedule cosine --methods crossreg,none,pbt,random-search`

    - `crossreg compare --methods list`

    - `crossreg compare --resume RUN_ID`
    """
    if given["methods"] == "list":
        _list_methods(as_json)
        return
    if "list" in (given["learn"] or ()):
        list_regularizers(as_json)
        return
    asked, what, where, tracked = flags.settings(
        given, CompareConfig, TrainConfig, Placement, TrackingConfig, file=config
    )
    if evaluations is not None:
        what["evaluations"] = evaluations
    result = run(what, asked, validated(Placement, where), validated(TrackingConfig, tracked), resume, not as_json)
    if as_json:
        print_json(as_dict(result))
    else:
        show(result)


def run(
    what: dict[str, Any],
    asked: dict[str, Any],
    placement: Placement,
    tracking: TrackingConfig,
    resume: str | None,
    show: bool,
) -> Comparison:
    """Compare, or go on with an earlier comparison; what `crossreg compare` does between its flags and printing."""
    folder: RunFolder | None = None
    if resume is not None:
        from crossreg.services.training.resume import LATEST, latest_run

        if resume == LATEST:
            resume, what_it_is = latest_run(tracking, "compare", finished=bool(asked))
            console().print(f"going on with run {resume} ({what_it_is})", markup=False, soft_wrap=True)
        folder, settings = _earlier(tracking, resume, what, asked)
    else:
        if not what.get("data", {}).get("name"):
            raise UserError(f"no data given; pass --data, one of {', '.join(known())}, or a path")
        # more intervals than a training's own: a search decides at each; on the way, 2,000 test examples draw a curve
        defaults = {"evaluations": 20, "interim_test": 2000}
        training = validated(TrainConfig, merge(defaults, what))
        settings = validated(CompareConfig, {**asked, "training": training})
    # what is wrong with the data is said before Ray, PyTorch and MLflow have been imported
    load_data(settings.training.data)
    from crossreg.baselines import METHODS
    from crossreg.services.comparison.compare import compare as run_comparison
    from crossreg.services.comparison.progress import CompareBar

    with CompareBar(console(quiet=not show)) as bar:
        return run_comparison(settings, METHODS, placement, tracking, folder=folder, display=bar)


def _earlier(
    tracking: TrackingConfig, run_id: str, what: dict[str, Any], asked: dict[str, Any]
) -> tuple[RunFolder, CompareConfig]:
    """Return the folder of an earlier comparison and what it compared; only methods and budgets may be added."""
    from crossreg.services.tracking.resume import run_tags
    from crossreg.services.training.storage import RunFolder

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


def _list_methods(as_json: bool) -> None:
    from rich.table import Table

    from crossreg.baselines import METHODS

    budgets = {
        name: "as --budget says" if method.searches else _own(method.own_budget) for name, method in METHODS.items()
    }
    if as_json:
        listed = [{"name": name, "summary": METHODS[name].summary, "budget": said} for name, said in budgets.items()]
        print_json({"methods": listed})
        return
    table = Table("method", "what it is", "budget", box=None)
    for name, said in budgets.items():
        table.add_row(name, METHODS[name].summary, said)
    results().print(table)


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
    out = results()
    out.print(result.summary.as_table())
    if result.summary.verdict:
        out.print(f"[bold]{result.summary.verdict}[/bold]")
    for sentence in result.summary.sentences:
        out.print(f"• {sentence}")
    out.print(f"report: {Path(result.report)}")
    where = result.url or result.run_id
    out.print(f"run: {where}   look at it with: [bold]{result.ui_command}[/bold]")
    out.print(
        f"its methods alone: search for  tags.comparison = '{result.run_id}' and tags.kind = 'method'", soft_wrap=True
    )


if __name__ == "__main__":
    run_app(app)
