"""Train again with regularization that a run learned or found. `python -m crossreg.jobs.replay --help`."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.core.errors import UserError
from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement

if TYPE_CHECKING:
    from crossreg.services.comparison.outcome import Outcome
    from crossreg.services.comparison.replay import Source

__all__ = ["app", "replay"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(Placement, TrackingConfig, leave_out=("workers", "min_workers", "checkpoint_every", "hang_timeout"))
def replay(
    run: Annotated[
        str,
        typer.Option(
            "--run", help="MLflow run id: of `crossreg train`, or of a method (crossreg, pbt, ...) in a comparison."
        ),
    ],
    mode: Annotated[
        str, typer.Option(help="schedule (as it went), frozen (its last values from the start), or both.")
    ] = "both",
    all_data: Annotated[
        bool, typer.Option("--all-data", help="Train on the regularization split too, which is free now.")
    ] = False,
    seeds: Annotated[int, typer.Option(max=10_000, help="How many seeds, counted from the run's own on.")] = 1,
    export: Annotated[Path | None, typer.Option(help="Write the schedule to this JSON file and train nothing.")] = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Certify that learned regularization carries over: train with it again, learning nothing.

    For example:

    - `crossreg replay --run RUN_ID`

    - `crossreg replay --run RUN_ID --all-data --seeds 3`

    - `crossreg replay --run RUN_ID --export schedule.json`
    """
    modes = {"schedule": (False,), "frozen": (True,), "both": (False, True)}
    if mode not in modes:
        raise UserError(f"mode is {mode!r}; allowed are {', '.join(modes)}")
    if seeds < 1:
        raise UserError(f"seeds is {seeds}; it must be at least 1")
    where, tracked = flags.settings(given, Placement, TrackingConfig)
    placement, tracking = validated(Placement, where), validated(TrackingConfig, tracked)
    from crossreg.services.comparison.method import Method
    from crossreg.services.comparison.progress import CompareBar
    from crossreg.services.comparison.replay import Replay, find_source
    from crossreg.services.comparison.session import run_methods

    source = find_source(tracking, run)
    if export is not None:
        try:
            export.write_text(json.dumps(source.as_dict(), indent=1))
        except OSError as error:
            raise UserError(f"cannot write {str(export)!r}: {error.strerror}") from error
        if as_json:
            print_json({"export": str(export), "entries": len(source.schedule)})
        else:
            results().print(f"{len(source.schedule)} entries written to {export}")
        return
    methods: list[Method] = [Replay(source, frozen=frozen, all_data=all_data) for frozen in modes[mode]]
    with CompareBar(console(quiet=as_json)) as bar:
        outcomes = run_methods(source.config, methods, seeds, placement, tracking, kind="replay", of=run, display=bar)
    if as_json:
        print_json(as_dict(source, outcomes))
    else:
        show(source, outcomes)


def as_dict(source: Source, outcomes: list[Outcome]) -> dict[str, Any]:
    """Return the replays as `--json` prints them."""
    from crossreg.services.comparison.replay import verdicts

    return {
        "source": {"run_id": source.run_id, "method": source.method, "seed": source.config.seed, "test": source.test},
        "replays": [
            {"run_id": o.run_id, "mode": o.method, "seed": o.seed, "test": o.test, "test_scaled": o.test_scaled}
            for o in outcomes
        ],
        "verdicts": [verdict.as_dict() for verdict in verdicts(source, outcomes)],
    }


def show(source: Source, outcomes: list[Outcome]) -> None:
    """Print the replays below the run they repeat, and whether they reached what it reached."""
    from rich.table import Table

    from crossreg.services.comparison.replay import verdicts

    names = [name for name in ("accuracy", "nll", "ece", "brier", "rmse") if name in outcomes[0].test]
    table = Table("", "seed", title="Test split", title_justify="left")
    for name in names:
        table.add_column(name if name == "accuracy" else name.upper(), justify="right")
    rows = [(f"{source.method}, as it was", source.config.data.seed, source.test)]
    rows += [(outcome.method, outcome.seed, outcome.test) for outcome in outcomes]
    for label, seed, test in rows:
        table.add_row(label, str(seed), *(f"{test[name]:.4f}" if name in test else "–" for name in names))
    if "rmse" in names:
        table.caption, table.caption_justify = "RMSE in standard deviations of the target", "left"
    out = results()
    out.print(table)
    for verdict in verdicts(source, outcomes):
        out.print(verdict.text, style="bold", markup=False)


if __name__ == "__main__":
    run_app(app)
