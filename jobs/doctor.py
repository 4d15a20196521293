"""Say what this machine offers, and what would stand in the way of a training."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
from pathlib import Path
from typing import Annotated, Any

import psutil
import typer

from crossreg.jobs.console import print_json, results, run_app

__all__ = ["app", "doctor", "examine"]

app = typer.Typer(add_completion=False, rich_markup_mode="markdown")

_PACKAGES = ("crossreg", "ray", "torch", "torchvision", "mlflow")
_SMALL_DISK_GB = 5.0


def examine() -> dict[str, Any]:
    """Return what the machine offers, by name."""
    import torch

    from crossreg.services.tracking import default_uri, redact
    from crossreg.services.training.runtime import available_cpus

    address = os.environ.get("RAY_ADDRESS")
    return {
        "python": platform.python_version(),
        **{name: importlib.metadata.version(name) for name in _PACKAGES},
        "cpus": available_cpus(),
        "memory_gb": round(psutil.virtual_memory().available / 2**30, 1),
        "gpus": [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())],
        "disk_free_gb": round(shutil.disk_usage(Path.cwd()).free / 2**30, 1),
        "writable": os.access(Path.cwd(), os.W_OK),
        "ray_cluster": address or "none; a training starts its own",
        "tracking_uri": redact(default_uri()),
    }


def problems(found: dict[str, Any]) -> list[str]:
    """Return what would stand in the way, in words."""
    result = []
    if found["disk_free_gb"] < _SMALL_DISK_GB:
        result.append(f"only {found['disk_free_gb']} GB of disk are free here; checkpoints and MLflow need some")
    if not found["writable"]:
        result.append("the working directory cannot be written; give --storage-path and --tracking-uri")
    if found["memory_gb"] < 2:
        result.append(f"only {found['memory_gb']} GB of memory are free; Ray alone takes about one")
    return result


@app.command()
def doctor(as_json: Annotated[bool, typer.Option("--json", help="Print one JSON object on stdout.")] = False) -> None:
    """Show cores, GPUs, versions, free disk and memory, the Ray cluster and the MLflow store in use."""
    found = examine()
    wrong = problems(found)
    if as_json:
        print_json({**found, "problems": wrong})
        return
    from rich.table import Table

    table = Table(show_header=False, box=None)
    for name, value in found.items():
        text = ", ".join(value) or "none" if isinstance(value, list) else str(value)
        table.add_row(name.replace("_", " "), text)
    results().print(table)
    for line in wrong:
        results().print(f"[yellow]![/yellow] {line}")
    if not wrong:
        results().print("ready to train")


if __name__ == "__main__":
    run_app(app)
