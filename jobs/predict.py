"""Predict rows, arrays or images of a file with a trained model. `python -m crossreg.jobs.predict --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.tracking.config import TrackingConfig

__all__ = ["app", "predict"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(TrackingConfig, leave_out=("experiment",))
def predict(
    model: Annotated[
        str, typer.Argument(help="A run's id, models:/NAME@ALIAS, models:/NAME/VERSION, or the folder of a model.")
    ],
    data: Annotated[
        Path, typer.Option(help="What to predict: .csv, .tsv, .parquet, .npz, x.npy, an image, or a folder of them.")
    ],
    output: Annotated[
        Path | None, typer.Option(help="Where to write a row an input: .csv or .parquet. Default: stdout, as CSV.")
    ] = None,
    target: Annotated[
        str | None, typer.Option(help="Column of the right answers, to score. Default: the model's, where it is there.")
    ] = None,
    keys: Annotated[
        str | None,
        typer.Option(metavar="NAME=VALUE,...", help="Names of the arrays in an .npz, e.g. x=images,y=labels."),
    ] = None,
    samples: Annotated[int, typer.Option(min=1, help="Noise draws averaged in a prediction.")] = 16,
    seed: Annotated[int, typer.Option(min=0, help="Fixes the draws.")] = 0,
    batch_size: Annotated[int, typer.Option(min=1, help="Examples that are read and predicted at a time.")] = 256,
    trust: Annotated[
        list[str] | None,
        typer.Option(metavar="MODULE:FUNCTION", help="A function of your own that builds the model. May be repeated."),
    ] = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Predict what lies in a file, as it is: rows of a table with its names, arrays, or image files.

    Writes one row an input: `label` and a probability a class, or `mean` and `std`. Where the file holds the right
    answers too, it is scored. Values that training never saw, and columns that are not used, are said.

    For example:

    - `crossreg predict RUN_ID --data new.csv --output answers.csv`

    - `crossreg predict models:/people@champion --data new.parquet --json`

    - `crossreg predict ./model --data path/to/images`
    """
    (tracked,) = flags.settings(given, TrackingConfig)
    from crossreg.services.prediction import Predicted, check_output, open_model, predict_file, write
    from crossreg.services.training.progress import ProgressLine

    if output is not None:
        check_output(output)

    with ProgressLine(console(quiet=as_json)) as line:
        line.phase("opening the model")
        exported = open_model(model, validated(TrackingConfig, tracked), tuple(trust or ()))
        line.phase("predicting")
        found: Predicted = predict_file(
            exported,
            data,
            target=target,
            keys=flags.mapping(keys, "--keys"),
            samples=samples,
            seed=seed,
            batch_size=batch_size,
            progress=line.count,
        )
    if as_json:
        where = None if output is None else str(output)
        written = None if output is not None else json.loads(found.frame.to_json(orient="records", double_precision=15))
        if output is not None:
            write(found.frame, output)
        told = {
            "examples": len(found.frame),
            "scores": found.scores,
            "notes": found.notes,
            "warnings": found.warnings,
            "output": where,
        }
        print_json(told | ({} if written is None else {"predictions": written}))
        return
    out = console()
    for note in found.notes:
        out.print(f"note: {note}", markup=False, soft_wrap=True)
    for warning in found.warnings:
        out.print(f"warning: {warning}", markup=False, soft_wrap=True)
    if output is None:
        typer.echo(found.frame.to_csv(index=False), nl=False)
    else:
        write(found.frame, output)
        results().print(f"{len(found.frame):,} predictions written to {output}")
    if found.scores:  # on stdout, but not into a CSV that is there already
        place = out if output is None else results()
        place.print(
            "scores: " + ", ".join(_score(name, value, found.rmse_unit) for name, value in found.scores.items())
        )


def _score(name: str, value: float, unit: str) -> str:
    return f"RMSE {value:.4g} ({unit})" if unit and name == "rmse" else f"{name} {value:.4f}"


if __name__ == "__main__":
    run_app(app)
