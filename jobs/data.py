"""Say how data are read: task, classes, columns, splits, guesses. `python -m crossreg.jobs.data --help`."""

from __future__ import annotations

from typing import Annotated, Any

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.data.config import DataConfig

__all__ = ["app", "data"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(DataConfig, leave_out=("data",))
def data(
    name: Annotated[str, typer.Argument(metavar="DATA", help="As `crossreg train --data` takes it.")],
    config: flags.ConfigFile = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Read data as `crossreg train` would, and say **how**: nothing is trained, and neither Ray nor MLflow is started.

    Task and classes, each column's kind and what was left out and why, missing values, the splits, examples that are
    in two of them, files that were skipped, and all that was guessed. Exit code 2 where the data are refused.

    For example:

    - `crossreg data people.csv --target income`

    - `crossreg data path/to/images --json`

    - `crossreg data visits.parquet --split-by patient --kind zip=category --drop name`
    """
    (settings,) = flags.settings({**given, "data": name}, DataConfig, file=config)
    from crossreg.services.data import describe, load_data
    from crossreg.services.training.progress import ProgressLine

    with ProgressLine(console(quiet=as_json)) as line:
        line.phase(f"reading {name}")
        found = describe(load_data(validated(DataConfig, settings), line.count, may_stream=True))
    if as_json:
        print_json(found)
    else:
        show(found)


def show(found: dict[str, Any]) -> None:
    """Print the description on stdout, as tables."""
    from rich.table import Table

    out = results()
    shape, (low, high) = "x".join(map(str, found["input_shape"])), found["input_range"]
    out.print(f"[bold]{found['data']}[/bold]: {found['task']}, fingerprint {found['fingerprint']}")
    out.print(f"an input is {shape} of {found['input_dtype']}, from {low:g} to {high:g} in the training split\n")
    splits = Table("examples", *found["splits"], box=None, pad_edge=False, header_style="bold")
    for column in splits.columns[1:]:
        column.justify = "right"
    splits.add_row("all", *(f"{size:,}" for size in found["splits"].values()))
    for label, counts in list(found["classes"].items())[:_SHOWN]:
        splits.add_row(f"  {label}", *(f"{counts.get(split, 0):,}" for split in found["splits"]))
    if (more := len(found["classes"]) - _SHOWN) > 0:
        splits.add_row(f"  and {more} more classes")
    splits.add_row("in an earlier split too", "", *(f"{found['duplicates'][split]:,}" for split in ("reg", "test")))
    out.print(splits)
    for target in found.get("target", ()):
        out.print(
            f"\ntarget: {target['min']:g} to {target['max']:g} in train, mean {target['mean']:g}, "
            f"deviation {target['std']:g}"
        )
    if found["features"]:
        columns = Table("column", "kind", "missing", "", box=None, pad_edge=False, header_style="bold")
        columns.columns[2].justify = "right"
        for one in found["features"]:
            count = one.get("features", 0)
            said = one.get("reason", f"{count} features" if count > 1 else "")
            columns.add_row(one["name"], one["kind"], f"{one['missing']:,}" if one["missing"] else "", said)
        out.print()
        out.print(columns)
    if found["notes"]:
        out.print()
    for note in found["notes"]:
        out.print(f"note: {note}", markup=False)


_SHOWN = 40  # classes

if __name__ == "__main__":
    run_app(app)
