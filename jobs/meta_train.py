"""Meta-train an optimizer on Ray, tracked in MLflow. `python -m crossreg.jobs.meta_train --help`."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from crossreg.jobs import flags
from crossreg.jobs.console import console, print_json, results, run_app
from crossreg.jobs.options import validated
from crossreg.services.meta_training.config import MetaTrainConfig
from crossreg.services.tracking.config import TrackingConfig
from crossreg.services.training.config import Placement

if TYPE_CHECKING:
    from crossreg.services.meta_training.driver import MetaTrained

__all__ = ["app", "meta_train"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")


@app.command()
@flags.takes(MetaTrainConfig, TrackingConfig)
def meta_train(
    out: Annotated[Path, typer.Argument(help="The optimizer file to make, e.g. `mine.safetensors`.")],
    workers: Annotated[
        int | None,
        typer.Option(min=1, help="Actors, of a core or a GPU each. Default: all cores.", rich_help_panel=flags.WHERE),
    ] = None,
    gpu: Annotated[bool, typer.Option("--gpu", help="A GPU for each actor.", rich_help_panel=flags.WHERE)] = False,
    config: flags.ConfigFile = None,
    as_json: flags.AsJson = False,
    **given: Any,
) -> None:
    """Learn an update rule by training small networks with it, again and again, and changing it for the better.

    Each actor has inner trainings of its own, all of different ages. What the rule is changed for is the **meta-loss**:
    the loss that inner trainings reach on their own data (`train`), on other data (`held-out`), or how sharp it is
    there (`sam`, `gsam`, `gam`). The file holds a few kB; `crossreg train --optimizer learned:FILE` takes it.

    Stopped or killed, the same command goes on where it was. For example:

    - `crossreg meta-train mine.safetensors`

    - `crossreg meta-train flat.safetensors --meta-loss sam --horizon 200 --iterations 500`

    - `crossreg meta-train own.safetensors --tasks digits:mlp-relu,people.csv:package.module:function`
    """
    what, tracked = flags.settings(given, MetaTrainConfig, TrackingConfig, file=config)
    settings = validated(MetaTrainConfig, what)
    tracking = validated(TrackingConfig, tracked)
    from crossreg.services.meta_training.driver import meta_train as run
    from crossreg.services.training.progress import ProgressLine
    from crossreg.services.training.runtime import available_cpus

    cores = available_cpus() if workers is None else workers
    placement = validated(Placement, {"workers": cores, "gpu": gpu})
    with ProgressLine(console(quiet=as_json), "{task.fields[detail]}") as line:
        result = run(settings, out, placement, tracking, line)
    if as_json:
        print_json(result.as_dict())
    else:
        show(result)


def show(result: MetaTrained) -> None:
    """Print what was made, and how to use it."""
    out = results()
    out.print(
        f"log meta-loss ({result.about.meta_loss}): {result.first:.3f} in the first tenth of the iterations, "
        f"{result.meta_loss:.3f} in the last, where {result.diverged:.1%} of the windows ended an inner training that "
        "diverged"
    )
    out.print(f"[bold]{result.path}[/bold] takes trainings of up to {result.about.horizon} steps; use it with:")
    out.print(f"  crossreg train --data digits --optimizer learned:{result.path}", markup=False)
    out.print(f"run: {result.run_id}   look at it with: [bold]{result.ui_command}[/bold]")


if __name__ == "__main__":
    run_app(app)
