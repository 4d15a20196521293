"""Sums measurements up for what a training says at its end: `python -m crossreg.studies.zero_flag.evidence ROWS`."""

from __future__ import annotations

import json
import statistics
import sys
from pathlib import Path

from crossreg.services.training.evidence import EVIDENCE, Evidence, Leads
from crossreg.services.training.tuning import TRIALS
from crossreg.studies.study import Measurement
from crossreg.studies.zero_flag.summed import Summed, summed

__all__ = ["evidence_of"]


def evidence_of(rows: list[Measurement]) -> Evidence:
    """Return the study in a few numbers, rounded as they are said."""
    found = summed(rows)
    sizes = [row["examples"] for row in rows if row["method"] == "zero flag"]
    tasks = {
        "classification": [one for one in found if not one.regression],
        "regression": [one for one in found if one.regression],
    }
    return Evidence.model_validate(
        {
            "trials": TRIALS,
            "compute": round(1 / statistics.mean(one.compute for one in found), 1),
            "seeds": min(len(one.leads) for one in found),
            "examples": (min(sizes), max(sizes)),
            "leads": {task: _leads(pairs) for task, pairs in tasks.items() if pairs},
        }
    )


def _leads(pairs: list[Summed]) -> Leads:
    values, fresh = [one.lead for one in pairs], [one.lead for one in pairs if one.untouched]
    return Leads(
        pairs=len(pairs),
        won=sum(one.won for one in pairs),
        mean=round(statistics.mean(values), 2),
        worst=round(min(values), 1),
        best=round(max(values), 1),
        untouched=len(fresh),
        untouched_mean=round(statistics.mean(fresh), 2),
    )


def main(rows: Path) -> None:
    """Write the file that the product reads."""
    EVIDENCE.write_text(evidence_of(json.loads(rows.read_text())).model_dump_json(indent=2) + "\n")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
