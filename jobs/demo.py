"""What learned regularization does, in two minutes: handwritten digits with and without it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from jobs.console import console, run_app
from jobs.options import validated
from services.tracking import TrackingConfig
from services.training.config import Placement, TrainConfig

if TYPE_CHECKING:
    from services.training.driver import Report

__all__ = ["app", "demo"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

# few examples and a large network: the case in which regularization matters
_SETTINGS = {"model": "mlp", "data": {"name": "digits", "limit": 400}, "rho": {"interval": 5}}


@app.command()
def demo(
    epochs: Annotated[int, typer.Option(help="Passes over the training split.")] = 60,
    workers: Annotated[int, typer.Option(help="Ray Train workers.")] = 2,
    seed: Annotated[int, typer.Option(help="Fixes everything random.")] = 0,
    folder: Annotated[Path, typer.Option(help="Where checkpoints and the MLflow store go.")] = Path("demo"),
) -> None:
    """Train a network on 400 of scikit-learn's digits twice, without and with learned noise, and compare.

    Both trainings run on Ray workers and are recorded in MLflow; the table says what the noise bought.
    """
    from services.training.driver import train
    from services.training.progress import Bar

    folder = folder.resolve()
    folder.mkdir(parents=True, exist_ok=True)
    tracking = TrackingConfig(uri=f"sqlite:///{folder / 'mlflow.db'}")
    placement = validated(Placement, {"workers": workers, "storage_path": str(folder / "runs")})
    reports = {}
    for method in ("none", "crossreg"):
        config = validated(TrainConfig, {**_SETTINGS, "method": method, "epochs": epochs, "seed": seed})
        console().print(f"[bold]{_NAMES[method]}[/bold]")
        with Bar(console()) as bar:
            reports[method] = train(config, placement, tracking, display=bar)
    show(reports)


_NAMES = {"none": "without noise", "crossreg": "with learned noise"}


def show(reports: dict[str, Report]) -> None:
    """Print the comparison on stdout, and how to look at the runs."""
    from rich.console import Console
    from rich.table import Table

    table = Table(title="Test split of scikit-learn's digits", title_justify="left")
    for name in ("", "accuracy", "NLL", "ECE", "NLL, scaled*", "learned sigma"):
        table.add_column(name, justify="left" if not name else "right")
    for method, report in reports.items():
        test, sigma = report.test, list(report.sigma.values())
        table.add_row(
            _NAMES[method],
            f"{test['accuracy']:.1%}",
            f"{test['nll']:.3f}",
            f"{test['ece']:.3f}",
            f"{report.test_scaled['nll']:.3f}",
            ", ".join(f"{value:.2g}" for value in sigma) or "–",
        )
    out = Console(highlight=False)
    out.print(table)
    out.print("* after temperature scaling on the regularization split, which both had")
    out.print(f"See both runs in MLflow: [bold]{reports['crossreg'].ui_command}[/bold]", soft_wrap=True)


if __name__ == "__main__":
    run_app(app)
