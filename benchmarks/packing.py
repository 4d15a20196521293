"""How busy a comparison keeps the machine: single runs and searches of several seeds, packed onto its CPUs.

A cross-regularized run, a run without regularization and a random search of eight trials, two seeds each, on digits.
Busy is the share of all CPUs' time, from the first interval's beginning to the last one's end, in which something
trained; what is missing are starts of trials, evaluations of what was chosen, and the end, when fewer are left than
there are CPUs.

    python -m benchmarks.packing
"""

from __future__ import annotations

import argparse
import json
import tempfile
from pathlib import Path

from crossreg.baselines import METHODS
from crossreg.services.comparison.run_jobs import Job, Listener, run_jobs
from crossreg.services.comparison.session import make_conditions
from crossreg.services.search.spec import Record, TrialSpec
from crossreg.services.training.config import Placement, TrainConfig
from crossreg.services.training.runtime import available_cpus, start_ray

TRIALS = 8


class _Spans(Listener):
    def __init__(self) -> None:
        self.spans: list[tuple[float, float]] = []

    def interval(self, job: Job, trial: int, spec: TrialSpec, record: Record) -> None:
        self.spans.append((record.began, record.ended))


def measure(steps: int = 600) -> dict[str, float]:
    """Return the share "busy", the wall-clock "seconds" and the number of "cpus"."""
    start_ray(Placement())
    config = TrainConfig.model_validate(
        {
            "model": "mlp",
            "data": {"name": "digits"},
            "optimizer": {"schedule": "cosine"},
            "steps": steps,
            "batch_size": 64,
            "evaluations": 5,
        }
    )
    conditions = make_conditions(config, population=TRIALS)
    jobs = [Job(METHODS[name], "full", seed) for seed in range(2) for name in ("crossreg", "none", "random-search")]
    spans = _Spans()
    with tempfile.TemporaryDirectory() as folder:
        run_jobs(jobs, conditions, Path(folder), listener=spans)
    began, ended = min(first for first, _ in spans.spans), max(last for _, last in spans.spans)
    cpus = available_cpus()
    busy = sum(last - first for first, last in spans.spans) / (cpus * (ended - began))
    return {"busy": busy, "seconds": ended - began, "cpus": cpus}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=600, help="of a training")
    print(json.dumps(measure(parser.parse_args().steps)))


if __name__ == "__main__":
    main()
