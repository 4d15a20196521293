"""What learned regularization does, in two minutes: handwritten digits, one run against a tuned population."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from crossreg.core.errors import UserError
from crossreg.core.paths import local_path
from crossreg.jobs.console import console, run_app
from crossreg.jobs.options import validated
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig

__all__ = ["app", "demo"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

# few examples and a large network: the case in which regularization matters
_SETTINGS = {
    "model": "mlp",
    "data": {"name": "digits", "limit": 400},
    "rho": {"interval": 5},
    "evaluations": 10,
    "optimizer": {"schedule": "cosine"},
}


@app.command()
def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    population: Annotated[int, typer.Option(help="Members of the population.")] = 4,
    seeds: Annotated[int, typer.Option(help="Seeds; from two on there are intervals.")] = 1,
    seed: Annotated[int, typer.Option(help="The first seed; fixes everything random.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where checkpoints and the MLflow store go.")] = Path("demo"),
) -> None:
    """Compare one cross-regularized run with none and with population-based training, on 400 of scikit-learn's digits.

    The population gets the compute of the one run, and then as many times that as it has members. All trainings run
    on Ray and are recorded in MLflow; a report says what each reached and cost.
    """
    from crossreg.baselines import METHODS
    from crossreg.jobs.compare import show
    from crossreg.services.comparison.compare import compare
    from crossreg.services.comparison.config import CompareConfig
    from crossreg.services.comparison.progress import CompareBar

    folder = local_path(folder, "folder").resolve()
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise UserError(f"cannot write to {str(folder)!r}: {error.strerror}") from error
    config = validated(
        CompareConfig,
        {
            "training": validated(TrainConfig, {**_SETTINGS, "epochs": epochs, "seed": seed}),
            "methods": ("crossreg", "none", "pbt"),
            "population": population,
            "seeds": seeds,
        },
    )
    placement = validated(Placement, {"storage_path": str(folder / "runs")})
    tracking = TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}")
    console().print(
        f"[bold]crossreg[/bold] (one run that learns its noise), [bold]none[/bold] (the same without) and "
        f"[bold]pbt[/bold] (a population of {population}), on 400 handwritten digits"
    )
    with CompareBar(console()) as bar:
        result = compare(config, METHODS, placement, tracking, display=bar)
    show(result)


if __name__ == "__main__":
    run_app(app)
