"""What came of a training, in sentences. `python -m crossreg.jobs.explain --help`."""

from __future__ import annotations

from typing import Annotated

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.tracking.config import TrackingConfig

__all__ = ["app", "explain"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
def explain(
    run_id: Annotated[str, typer.Argument(help="An MLflow run, as `crossreg train` printed it.")],
    tracking_uri: flags.TrackingUri = None,
    as_json: flags.AsJson = False,
) -> None:
    """Say what came of a training: how good, how long and why, what regularized it, its cost, and what looks wrong.

    The same stands at the top of the run's description in MLflow.

    For example:

    - `crossreg explain RUN_ID`
    """
    from crossreg.services.tracking.resume import read_artifact
    from crossreg.services.training.explain import EXPLANATION

    tracking = validated(TrackingConfig, {} if tracking_uri is None else {"uri": tracking_uri})
    sentences = read_artifact(tracking, run_id, EXPLANATION).decode().split("\n\n")
    if as_json:
        print_json({"run_id": run_id, "explanation": sentences})
    else:
        results().print("\n\n".join(sentences), markup=False)


if __name__ == "__main__":
    run_app(app)
