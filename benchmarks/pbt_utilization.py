"""How well each population scheduler uses its workers: the table of `docs/method/pbt.md`.

Four members on four workers (or as many as there are CPUs) train a small network for twelve intervals, once under
each scheduler. Utilization is the share of the workers' time, between the first interval's end and the last, in which a
member trained; the rest is waiting, pausing and starting again. Attainable is the share where all that members wait for
is the slowest of them at each boundary.

    python -m benchmarks.pbt_utilization --out utilization.json
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from crossreg.baselines import METHODS
from crossreg.services.comparison.run_jobs import Job, run_jobs
from crossreg.services.comparison.session import make_conditions
from crossreg.services.search.spec import Record
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.runtime import available_cpus, start_ray

SCHEDULERS = ("pbt", "pbt-async", "pbt-stock", "pbt-stock-async")


def attainable_share(folder: Path) -> float:
    """Return the utilization of synchronous members if a boundary itself took no time, after the first interval."""
    taken: dict[int, list[float]] = {}
    for path in folder.rglob("states/*.json"):
        record = Record.model_validate_json(path.read_bytes())
        taken.setdefault(record.until, []).append(record.ended - record.began)
    later = [taken[until] for until in sorted(taken)[1:]]
    return sum(map(sum, later)) / sum(len(seconds) * max(seconds) for seconds in later)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--intervals", type=int, default=12)
    parser.add_argument("--steps", type=int, default=300, help="steps of an interval")
    parser.add_argument("--members", type=int, default=min(4, available_cpus()))
    parser.add_argument("--schedulers", default=",".join(SCHEDULERS))
    parser.add_argument("--out", type=Path)
    arguments = parser.parse_args()
    start_ray(Placement())
    config = TrainConfig.model_validate(
        {
            "model": "mlp",
            "data": {"name": "digits"},
            "optimizer": {"schedule": "cosine"},
            "steps": arguments.intervals * arguments.steps,
            "batch_size": 64,
            "evaluations": arguments.intervals,
        }
    )
    conditions = make_conditions(config, population=arguments.members)
    rows = []
    for name in arguments.schedulers.split(","):
        with tempfile.TemporaryDirectory() as folder:
            (outcome,) = run_jobs([Job(METHODS[name], "full", 0)], conditions, Path(folder))
            attainable = attainable_share(Path(folder))
            exploits = sum(len({json.dumps(values) for _, values in member}) - 1 for member in outcome.members)
        row = {
            "scheduler": name,
            "utilization": outcome.utilization,
            "attainable": attainable,
            "seconds": outcome.seconds,
            "changes of values in final lineages": exploits,
            "test NLL": outcome.test["nll"],
        }
        rows.append(row)
        print(row, flush=True)
    if arguments.out:
        arguments.out.write_text(json.dumps(rows, indent=1))


if __name__ == "__main__":
    main()
