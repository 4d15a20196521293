"""Train one model with learned regularization on Ray, tracked in MLflow. `python -m crossreg.jobs.train --help`."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.core.plain import finite
from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import merge, validated
from crossreg.services.data import known, load_data
from crossreg.services.data.units import TargetUnit
from crossreg.services.logs import structured
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from crossreg.regularizers.registry import Regularizer
    from crossreg.services.training.driver import FinishedTraining, Resume

__all__ = ["app", "run", "train"]

_log = logging.getLogger(__name__)

_LENGTHS = ("epochs", "steps", "budget")
"""What a resumed run may be given anew."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(TrainConfig, Placement, TrackingConfig)
def train(
    resume: Annotated[
        str | None,
        typer.Option(
            help="Go on with an MLflow run (its id; `latest`: the newest that has not finished), or start from a "
            "checkpoint (its path).",
            rich_help_panel=flags.WHERE,
        ),
    ] = None,
    config: flags.ConfigFile = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Train a model in **one run** that decides by held-out data what is otherwise searched for.

    A held-out *regularization split* says how long to train and at what temperature to predict; with `--learn` further
    regularization follows its gradients while the weights follow the training split. Runs on a Ray started here, or on
    the cluster of `RAY_ADDRESS`; everything is recorded in MLflow (`crossreg ui` shows it).

    For example:

    - `crossreg train --data digits`

    - `crossreg train --model cnn --data path/to/images --workers 2 --epochs 40`

    - `crossreg train --model mlp --data fashion-mnist --download`

    - `crossreg train --data digits --learn l2 --learn shift --fix weight_decay=0`

    - `crossreg train --data people.csv --target renewed --budget 5m`

    - `crossreg train --resume RUN_ID --epochs 60`
    """
    if "list" in (given["learn"] or ()):
        list_regularizers(as_json)
        return
    what, where, tracked = flags.settings(given, TrainConfig, Placement, TrackingConfig, file=config)
    result = run(given, what, validated(Placement, where), validated(TrackingConfig, tracked), resume, not as_json)
    if as_json:
        print_json(as_dict(result))
    elif structured():
        _log.info("result", extra=as_dict(result))
    else:
        show(result)


def list_regularizers(as_json: bool = False) -> None:
    """Print all that can be learned or fixed."""
    from rich.table import Table

    from crossreg.regularizers.registry import REGISTRY

    if as_json:
        print_json({"regularizers": [_about(name, entry) for name, entry in REGISTRY.items()]})
        return
    table = Table.grid(padding=(0, 2, 0, 0))
    for name, entry in REGISTRY.items():
        one, (low, high) = entry.hyperparameter, entry.hyperparameter.range
        by = "the direct gradient" if one.direct else "gradients that follow theta (unrolled, implicit, t1-t2)"
        start = "the model's own" if one.default is None else f"{one.default:g}"
        how = (
            f"learned by {by}, starting at {start}"
            if one.learned_by_rho
            else "fixed or searched, not learned: --fix it"
        )
        options = f"; options in a file: {', '.join(entry.options)}" if entry.options else ""
        table.add_row(name, f"{one.help} ({one.unit})\n{how}; searched from {low:g} to {high:g}{options}\n")
    results().print(table)


def _about(name: str, entry: Regularizer) -> dict[str, Any]:
    one = entry.hyperparameter
    return {
        "name": name,
        "help": one.help,
        "unit": one.unit,
        "learned": one.learned_by_rho,
        "direct": one.direct,
        "default": one.default,
        "range": list(one.range),
        "options": list(entry.options),
    }


def run(
    given: dict[str, Any],
    what: dict[str, Any],
    placement: Placement,
    tracking: TrackingConfig,
    resume: str | None,
    show: bool,
) -> FinishedTraining:
    """Train, or go on with an earlier run; what `crossreg train` does between reading its flags and printing."""
    run: Resume | None = None
    start_from: str | None = None
    if resume is not None and _is_path(resume):
        start_from = resume if "://" in resume else str(Path(resume).resolve())
    elif resume is not None:
        from crossreg.services.training.resume import LATEST, find_run, latest_run

        if resume == LATEST:
            resume, what_it_is = latest_run(tracking, "train", finished=any(what.get(name) for name in _LENGTHS))
            console().print(f"going on with run {resume} ({what_it_is})", markup=False, soft_wrap=True)
        run, recorded = find_run(tracking, resume)
        if given["learn"] or given["fix"]:
            what["regularizers"] = flags.regularizers(given, recorded["regularizers"], recorded)
        what = _continued(recorded, what)
    elif "data" not in what or not what["data"].get("name"):
        raise UserError(f"no data given; pass --data, one of {', '.join(known())}, or a path")
    settings = validated(TrainConfig, what)
    from crossreg.services.training.progress import Bar

    with Bar(console(quiet=structured() or not show)) as bar:
        bar.phase(f"loading {settings.data.name}")
        # what is wrong with the data is said before Ray, PyTorch and MLflow have been imported
        data = load_data(settings.data, bar.count, may_stream=True)
        bar.phase("starting")
        from crossreg.services.training.driver import train as run_training

        return run_training(settings, placement, tracking, data=data, resume=run, start_from=start_from, display=bar)


def _is_path(resume: str) -> bool:
    return "/" in resume or "\\" in resume or resume.endswith(".pt") or local_path(resume, "--resume").exists()


def _continued(recorded: dict[str, Any], given: dict[str, Any]) -> dict[str, Any]:
    """Return the recorded configuration with another length; anything else given must equal what was recorded."""
    changed = merge(recorded, given)
    for key in _LENGTHS:
        recorded.pop(key, None)
    fixed = {key: value for key, value in changed.items() if key not in _LENGTHS}
    if ("epochs" in given or "budget" in given) and "steps" not in given:
        changed["steps"] = None
    a, b = (validated(TrainConfig, values).model_dump() for values in (recorded, fixed))
    different = [key for key in a if a[key] != b[key]]
    if different:
        raise UserError(
            f"a resumed run keeps its configuration, but {', '.join(different)} differ from what it was started with; "
            "only --epochs, --steps, --budget and where it runs may change. Start a new run from its checkpoint instead"
        )
    return changed


def as_dict(result: FinishedTraining) -> dict[str, Any]:
    """Return the result as `--json` prints it; JSON has no NaN, so what is not finite is null."""
    plain: dict[str, Any] = finite(result.model_dump())
    return plain


def show(result: FinishedTraining) -> None:
    """Print what came of it in sentences, the scores as a table, and how to look at the run."""
    from rich.table import Table

    out = results()
    for index, sentence in enumerate(result.explanation):
        out.print(sentence, style="bold" if index == 0 else None, markup=False)
    unit = TargetUnit(result.target_std, result.target) if result.target_std else None
    table = Table(title="Test split", title_justify="left", caption_justify="left")
    if unit is not None:
        table.caption = f"RMSE {unit.text}; NLL of the standardized target"
    table.add_column("")
    for name in result.test:
        table.add_column(name.upper() if len(name) <= 4 else name, justify="right")
    rows = {"as trained": result.test, "temperature-scaled": result.test_scaled, **result.simple}
    for label, scores in rows.items():
        if scores:
            table.add_row(label, *(_number(name, scores, unit) for name in result.test))
    out.print(table)
    out.print(f"checkpoint: {result.checkpoint}")
    out.print(f"model: {result.model_uri or 'not logged'}")
    out.print(f"run: {result.url or result.run_id}   look at it with: [bold]{result.ui_command}[/bold]")


def _number(name: str, scores: Mapping[str, float], unit: TargetUnit | None) -> str:
    if name not in scores:
        return "–"
    return f"{scores[name]:.4f}" if unit is None or name != "rmse" else unit.own(scores[name])


if __name__ == "__main__":
    run_app(app)
