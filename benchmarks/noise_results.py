"""Learned noise beside the same training without it, on Ray, tracked in MLflow: the numbers of `docs/results/noise.md`.

Three methods a seed: `crossreg`; `none`, the same splits without noise; `none, all data`, which trains on the
regularization split too (and so has nothing left to fit a temperature on). Finished runs are read from the JSON lines
of `--out` and not run again.

    python -m benchmarks.noise_results --data fashion-mnist --model mlp --limit 2000 --epochs 60 --out runs.jsonl
"""

from __future__ import annotations

import argparse
import dataclasses
import json
import statistics
from pathlib import Path
from typing import Any

from rich.console import Console

from crossreg.services.tracking import TrackingConfig
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.driver import train
from crossreg.services.training.progress import Bar

LEARNED: dict[str, Any] = {"noise": {}, "temperature": {}}
METHODS: dict[str, tuple[dict[str, Any], float | None]] = {
    "crossreg": (LEARNED, None),
    "none": ({}, None),
    "none, all data": ({}, 0.0),
}


def run(arguments: argparse.Namespace, label: str, seed: int) -> dict[str, Any]:
    regularizers, reg_share = METHODS[label]
    data = {"name": arguments.data, "root": arguments.data_root, "limit": arguments.limit, "reg_share": reg_share}
    config = TrainConfig.model_validate(
        {
            "model": arguments.model,
            "data": data,
            "regularizers": regularizers,
            "optimizer": {"schedule": "cosine"},
            "epochs": arguments.epochs,
            "seed": seed,
            "evaluations": arguments.evaluations,
            "final_samples": arguments.draws,
        }
    )
    tracking = TrackingConfig(uri=f"sqlite:///{arguments.folder}/mlflow.db", tags={"group": label})
    placement = Placement(workers=arguments.workers, storage_path=str(arguments.folder / "runs"))
    with Bar(Console(stderr=True)) as bar:
        result = train(config, placement, tracking, display=bar)
    return {
        "key": [arguments.data, arguments.limit, arguments.model, arguments.epochs, label, seed],
        "test": result.test,
        "scaled": result.test_scaled,
        "sigma": [result.regularizers[name] for name in result.learned if name.startswith("noise/")],
        "cost": dataclasses.asdict(result.cost),
        "run_id": result.run_id,
        "diagnoses": result.diagnoses,
    }


def table(rows: list[dict[str, Any]]) -> str:
    columns = (
        "accuracy %",
        "NLL",
        "ECE",
        "Brier",
        "NLL scaled",
        "ECE scaled",
        "FLOPs, units of 1e12",
        "sigma by layer",
    )
    lines = ["| method | " + " | ".join(columns) + " |", "|---" * (len(columns) + 1) + "|"]
    for label in METHODS:
        mine = [row for row in rows if row["key"][4] == label]
        if not mine:
            continue

        def cell(part: str, key: str, scale: float = 1, digits: int = 3, mine: list[dict[str, Any]] = mine) -> str:
            values = [scale * row[part][key] for row in mine if row[part]]
            if not values:
                return "–"
            spread = f" ± {statistics.stdev(values):.{digits}f}" if len(values) > 1 else ""
            return f"{statistics.mean(values):.{digits}f}{spread}"

        sigma = [f"{statistics.mean(v):.2g}" for v in zip(*(row["sigma"] for row in mine), strict=True)]
        cells = [
            cell("test", "accuracy", 100, 2),
            *(cell("test", name) for name in ("nll", "ece", "brier")),
            *(cell("scaled", name) for name in ("nll", "ece")),
            cell("cost", "flops", 1e-12, 1),
            ", ".join(sigma) or "–",
        ]
        lines.append(f"| {label} ({len(mine)} seeds) | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--draws", type=int, default=16, help="noise draws of the final evaluation")
    parser.add_argument("--evaluations", type=int, default=6)
    parser.add_argument("--methods", default=";".join(METHODS), help="separated by semicolons")
    parser.add_argument("--folder", type=Path, default=Path("results"), help="checkpoints and the MLflow store")
    parser.add_argument("--out", type=Path, default=Path("results/runs.jsonl"))
    arguments = parser.parse_args()
    arguments.folder = arguments.folder.resolve()
    arguments.out.parent.mkdir(parents=True, exist_ok=True)
    known = [json.loads(line) for line in arguments.out.open()] if arguments.out.exists() else []
    rows = []
    for seed in range(arguments.seeds):
        for label in arguments.methods.split(";"):
            key = [arguments.data, arguments.limit, arguments.model, arguments.epochs, label, seed]
            row = next((row for row in known if row["key"] == key), None)
            if row is None:
                row = run(arguments, label, seed)
                with arguments.out.open("a") as file:
                    file.write(json.dumps(row) + "\n")
            rows.append(row)
    print(table(rows))


if __name__ == "__main__":
    main()
