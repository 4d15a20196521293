"""What changes the result of a cross-regularized run: the table of variants in `docs/results/compare.md`.

Every variant trains on the same splits as the default; the difference to it is paired by seed.

    python -m benchmarks.crossreg_variants --data fashion-mnist --model mlp --limit 2000 --epochs 60
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
from pathlib import Path
from typing import Any

from crossreg.jobs.options import merge
from crossreg.services.comparison.conditions import Conditions
from crossreg.services.comparison.method import Method, Run, Trials
from crossreg.services.comparison.outcome import Outcome
from crossreg.services.comparison.run_jobs import Job, run_jobs
from crossreg.services.comparison.session import make_conditions
from crossreg.services.search.budget import Budget
from crossreg.services.search.spec import selection_score
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.runtime import start_ray

VARIANTS: dict[str, dict[str, Any]] = {
    "default": {},
    "one sigma a unit": {"regularizers": {"noise": {"granularity": "unit"}}},
    "multiplicative noise": {"regularizers": {"noise": {"form": "multiplicative"}}},
    "sigma starts at 0.5": {"regularizers": {"noise": {"start": 0.5}}},
    "K = 8 draws": {"rho": {"samples": 8}},
    "rho lr 0.3": {"rho": {"lr": 0.3}},
    "no temperature": {"regularizers": {"temperature": False}},
    "T1-T2's gradient": {"rho": {"estimator": "t1-t2"}},
    "weight decay 0.1": {"regularizers": {"weight_decay": {"learn": False, "value": 0.1}}},
    "dropout 0.3 beside": {"regularizers": {"dropout": {"learn": False, "value": 0.3}}},
    "a quarter of the steps": {"share": 0.25},
    "best interval on reg": {"best": True},
    "unrolled, 1 step": {"rho": {"estimator": "unrolled"}},
    "unrolled, 5 steps": {"rho": {"estimator": "unrolled", "unroll_steps": 5}},
    "implicit, 10 terms": {"rho": {"estimator": "implicit"}},
    "implicit, 50 terms": {"rho": {"estimator": "implicit", "neumann_terms": 50}},
    # how often rho steps, and how far each goes, for the same compute: what is not spent on rho trains theta longer
    "interval 5": {"rho": {"interval": 5}, "matched": True},
    "interval 10": {"rho": {"interval": 10}, "matched": True},
    "interval 20": {"rho": {"interval": 20}, "matched": True},
    "interval 30": {"rho": {"interval": 30}, "matched": True},
    "interval 10, rho lr 0.2": {"rho": {"interval": 10, "lr": 0.2}, "matched": True},
    "interval 20, rho lr 0.3": {"rho": {"interval": 20, "lr": 0.3}, "matched": True},
    "interval 30, rho lr 0.3": {"rho": {"interval": 30, "lr": 0.3}, "matched": True},
}


def slug(name: str) -> str:
    """Return a variant's name as a method's: MLflow's and the file system's."""
    return name.replace(",", "").replace(" ", "-")


class Variant(Method):
    """A cross-regularized run with one thing changed."""

    def __init__(self, name: str, changes: dict[str, Any]) -> None:
        self.name, self.summary, self.changes = slug(name), name, dict(changes)

    def run(self, conditions: Conditions, seed: int, budget: Budget) -> Run:
        changes = dict(self.changes)
        best, matched = changes.pop("best", False), changes.pop("matched", False)
        reference = conditions.reference(seed).model_dump()
        if share := changes.pop("share", None):
            changes["steps"] = round(share * reference["steps"])
        for name, value in changes.items():
            if isinstance(value, dict):
                changes[name] = merge(reference[name], value)
        if best:
            # as early stopping would choose, without stopping: its curve shows what it would have saved
            changes |= {"interim_test": None, "final_test": True}
        amount = budget.amount if matched else None
        (trial,) = yield Trials([conditions.trial(seed, amount=amount, select=best, **changes)])
        chosen = min(trial.records, key=lambda record: selection_score(record, "nll")) if best else trial.final
        return self.outcome([trial], chosen, seed, budget)


def table(outcomes: list[Outcome]) -> str:
    names = ("accuracy", "nll", "ece")
    heads = ("variant", "accuracy %", "NLL", "ECE", "Δ accuracy", "Δ NLL", "steps", "sigma by layer")
    lines = ["| " + " | ".join(heads) + " |", "|---" * len(heads) + "|"]
    default = {o.seed: o for o in outcomes if o.method == "default"}
    for name in VARIANTS:
        mine = [o for o in outcomes if o.method == slug(name)]
        if not mine:
            continue
        cells = []
        for score in names:
            values = [o.test[score] * (100 if score == "accuracy" else 1) for o in mine]
            spread = f" ± {statistics.stdev(values):.{2 if score == 'accuracy' else 3}f}" if len(values) > 1 else ""
            cells.append(f"{statistics.mean(values):.{2 if score == 'accuracy' else 3}f}{spread}")
        for score, scale, digits in (("accuracy", 100, 2), ("nll", 1, 3)):
            paired = [scale * (o.test[score] - default[o.seed].test[score]) for o in mine if o.seed in default]
            spread = f" ± {statistics.stdev(paired):.{digits}f}" if len(paired) > 1 else ""
            cells.append(f"{statistics.mean(paired):+.{digits}f}{spread}" if paired else "–")
        cells.append(f"{statistics.mean(o.config.steps for o in mine if o.config):.0f}")
        sigma = zip(*([o.regularizers[n] for n in o.learned if n.startswith("noise/")] for o in mine), strict=True)
        cells.append(", ".join(f"{statistics.mean(layer):.2g}" for layer in sigma))
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True)
    parser.add_argument("--data-root", default="data")
    parser.add_argument("--model", required=True)
    parser.add_argument("--limit", type=int)
    parser.add_argument("--epochs", type=int, required=True)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--variants", help="separated by semicolons; all by default")
    parser.add_argument("--evaluations", type=int, default=20)
    parser.add_argument("--final-samples", type=int, default=16, help="noise draws of the scores in the table")
    parser.add_argument("--out", type=Path, help="write the outcomes to this JSON file")
    arguments = parser.parse_args()
    chosen = arguments.variants.split(";") if arguments.variants else list(VARIANTS)
    start_ray(Placement())
    config = {
        "model": arguments.model,
        "data": {"name": arguments.data, "root": arguments.data_root, "limit": arguments.limit},
        "epochs": arguments.epochs,
        "optimizer": {"schedule": "cosine"},
        "evaluations": arguments.evaluations,
        "interim_test": 500,
        "final_samples": arguments.final_samples,
    }
    conditions = make_conditions(TrainConfig.model_validate(config))
    jobs = [Job(Variant(name, VARIANTS[name]), "matched", seed) for seed in range(arguments.seeds) for name in chosen]
    with tempfile.TemporaryDirectory() as folder:
        outcomes = run_jobs(jobs, conditions, Path(folder))
    if arguments.out:
        arguments.out.write_text(json.dumps([json.loads(o.model_dump_json(exclude={"curve"})) for o in outcomes]))
    print(table(outcomes))


if __name__ == "__main__":
    main()
