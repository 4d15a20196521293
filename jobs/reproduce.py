"""Problems whose answer is known: how far each gradient estimator gets. `python -m crossreg.jobs.reproduce --help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.core.paths import local_path
from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.data.config import DataConfig
from crossreg.services.tracking.config import TrackingConfig

if TYPE_CHECKING:
    from rich.table import Table

    from crossreg.studies.run import Reproduced
    from crossreg.studies.study import Study

__all__ = ["app", "reproduce"]

ALL = "all"
"""Stands for every experiment of the source paper."""

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(DataConfig, TrackingConfig, leave_out=("reg_share", "target"))
def reproduce(
    study: Annotated[
        str,
        typer.Argument(
            help="ridge, lasso, spline, hypergradient, augmentation, weight-decay, zero-flag, sensitivity, learned, "
            "ensemble, learned-optimizer, noise-pattern, accuracy, calibration, growing-data, drift, reg-size, "
            "other-domains; all: those of the paper, from noise-pattern on"
        ),
    ],
    seeds: Annotated[
        int | None,
        typer.Option(
            max=10_000,
            help="Random problems of each kind. Default: 3; 5 of accuracy, calibration and other-domains.",
        ),
    ] = None,
    workers: Annotated[int | None, typer.Option(help="Processes, of one core each. Default: all cores.")] = None,
    folder: Annotated[Path, typer.Option(help="The figure goes here.")] = Path("reproduce"),
    pairs: Annotated[
        str, typer.Option(help="Of zero-flag and the two after it: names of pairs, comma-separated. Default: all.")
    ] = "",
    scale: Annotated[
        str | None,
        typer.Option(
            help="Of learned-optimizer: small or full; of the paper's: small or paper, which wants a GPU. "
            "Default: small.",
            metavar="small|full|paper",
        ),
    ] = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Measure what is claimed: gradient estimators on problems whose best regularization is known, and the whole run.

    Prints a table, draws a figure and records both in MLflow.

    - `ridge`: learned lambda against the closed form, over condition numbers from 10 to a million

    - `lasso`: learned L1 against `LassoCV` and the exact path, on diabetes data and over condition numbers

    - `spline`: learned smoothness against generalized cross-validation, over functions and noise levels

    - `hypergradient`: every estimator against finite differences, by kind of rho, with its time and memory

    - `augmentation`: learned shifts and rotations against planted ones; 6 and 9 upside down; a spurious background

    - `weight-decay`: weight decay and noise learned together with each estimator, against a grid of both

    - `zero-flag`: one run without flags against a random search of 16 trainings, on pairs of data and network

    - `sensitivity`: every constant of such a run, larger and smaller

    - `learned`: noise and L2 learned in such a run, against its fixed base

    - `ensemble`: several networks in one training against one; penalties between them, claim by claim

    - `learned-optimizer`: optimizers meta-trained with regularizers in the meta-loss against tuned ones, claim by claim

    The deep experiments of the source paper, claim by claim with its numbers; `all` runs these and writes a page of
    verdicts, `paper.md`. What is finished is kept and not measured again.

    - `noise-pattern`: where learned noise goes: by layer over time, in VGG-16 and in a residual network

    - `accuracy`: against none, fixed noise, dropout and population-based training, also under strong settings

    - `calibration`: against a temperature, fixed noise, MC dropout and a deep ensemble; under shift

    - `growing-data`: the training set grows in one run, and sigma follows

    - `drift`: the data change in one run: does sigma follow without forgetting?

    - `reg-size`: how small the regularization split may be

    - `other-domains`: text, sequences and tables

    For example:

    - `crossreg reproduce ridge`

    - `crossreg reproduce ridge --seeds 5 --json`

    - `crossreg reproduce all --scale small`
    """
    from crossreg.studies.run import experiments, study_named

    kinds = experiments() if study == ALL else [study_named(study)]
    data, tracked = flags.settings(given, DataConfig, TrackingConfig)
    tracking = validated(TrackingConfig, tracked)
    only = [name.strip() for name in pairs.split(",") if name.strip()]
    where = local_path(folder, "folder").resolve()
    chosen = [kind(_data_of(kind, data), only, scale) for kind in kinds]
    if study == ALL:  # what the last of them lacks is said before the first one takes its time
        for one in chosen:
            one.prepare()
    found = []
    for one in chosen:
        found.append(_run(one, one.seeds if seeds is None else seeds, tracking, where, workers, as_json))
        if not as_json:
            show(found[-1])
        if study == ALL:
            from crossreg.studies.paper.page import page

            (where / "paper.md").write_text(page(found, where))
    if as_json:
        print_json([one.as_dict() for one in found] if study == ALL else found[0].as_dict())
    elif study == ALL:
        results().print(f"page of verdicts: {where / 'paper.md'}")


def _data_of(kind: type[Study], given: dict[str, Any]) -> DataConfig | None:
    """Return the data that are given to a study; None where none are."""
    return validated(DataConfig, {"name": kind.default_data or "none", **given}) if given else None


def _run(
    study: Study, seeds: int, tracking: TrackingConfig, folder: Path, workers: int | None, quiet: bool
) -> Reproduced:
    from crossreg.services.training.progress import ProgressLine
    from crossreg.studies.run import reproduce as run

    with ProgressLine(console(quiet=quiet)) as bar:
        bar.phase(study.summary)
        return run(study, seeds, tracking, folder, workers=workers, advance=bar.count)


def tables(columns: dict[str, str], rows: list[dict[str, str]], labels: int, width: int) -> list[Table]:
    """Return rows as a table or, where that is wider than the terminal, as several below each other: no word is cut.

    Args:
        columns: headings by the key of a cell.
        rows: cells by key.
        labels: how many of the first columns say what a row is of; every table has them.
        width: characters in a line.
    """
    from rich.table import Table

    needed = {
        key: max(map(len, [*heading.split(), *(_unbroken(row[key]) for row in rows)]))
        for key, heading in columns.items()
    }
    keys = list(columns)
    parts: list[list[str]] = [keys[:labels]]
    for key in keys[labels:]:
        if len(parts[-1]) > labels and sum(needed[one] + _GAP for one in [*parts[-1], key]) > width:
            parts.append(keys[:labels])
        parts[-1].append(key)
    natural = {key: max(map(len, [columns[key], *(row[key] for row in rows)])) for key in keys}
    found = []
    for part in parts:
        room = width - sum(needed[key] + _GAP for key in part)
        table = Table(box=None, header_style="bold", padding=(0, _GAP, 0, 0), pad_edge=False)
        for place, key in enumerate(part):
            # rich makes columns too narrow for a word as easily as others wider than they have to be
            more = max(0, min(natural[key] - needed[key], room))
            room -= more
            table.add_column(columns[key], justify="left" if place < labels else "right", width=needed[key] + more)
        for row in rows:
            table.add_row(*(row[key] for key in part))
        found.append(table)
    return found


_GAP = 2  # between columns
_LONG = 20  # characters of a cell that may be broken at its blanks


def _unbroken(cell: str) -> str:
    return cell if len(cell) <= _LONG else max(cell.split(), key=len)


def show(result: Reproduced) -> None:
    """Print the table, the findings, and where the rest is."""
    out = results()
    out.print(result.study.summary, style="italic")
    for table in tables(result.study.columns, result.table, result.study.labels, out.width):
        out.print(table)
    for sentence in result.findings:
        out.print(f"• {sentence}")
    if result.kept:
        said = (
            f"{result.kept} cases had been measured before and were read from {result.cases}; remove it to measure anew"
        )
        out.print(f"note: {said}")
    out.print(f"figure: {result.figure}")
    out.print(f"run: {result.run_id}   look at it with: [bold]{result.ui_command}[/bold]")


if __name__ == "__main__":
    run_app(app)
