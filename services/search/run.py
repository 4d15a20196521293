"""Running trials on Ray Tune: as many at a time as the cluster has room for, never more."""

from __future__ import annotations

import json
import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from services.search.budget import Meter
from services.search.spec import Cost, Knobs, Record, TrialSpec, tune_name
from services.search.trial import States

__all__ = ["Proposals", "Search", "SearchError", "TrialResult", "Watch", "run_search"]

# set before Ray Tune is imported; a value the user has set wins
_ENVIRONMENT = {
    "RAY_AIR_NEW_OUTPUT": "0",
    # what a trial leaves is in its records
    "TUNE_DISABLE_AUTO_CALLBACK_LOGGERS": "1",
    # Ctrl-C ends the search here, where the MLflow runs are closed, and not inside Tune
    "TUNE_DISABLE_SIGINT_HANDLER": "1",
    "TUNE_RESULT_BUFFER_LENGTH": "1",
    # Tune's own snapshots are not used: a search that is run again finds its intervals done
    "TUNE_GLOBAL_CHECKPOINT_S": "3600",
    "TUNE_WARN_INSUFFICENT_RESOURCE_THRESHOLD_S": "0",
}


class SearchError(RuntimeError):
    """A trial ended without a result; the message says which and why."""


@dataclass
class Search:
    """Trials to run together.

    Attributes:
        specs: what is trained, one a trial; a searcher that proposes knobs takes the first for all.
        knobs: knobs of each trial at its start; empty dicts where the specification says it all.
        scheduler: of Ray Tune; None lets every trial run to its end.
        searcher: makes a searcher of Ray Tune, which proposes knobs (`knobs` is not used then); it is given those that
            were proposed when the search ran before.
        space: Tune's search space by knob, for a searcher.
        num_samples: trials of a searcher.
        top_level: put knobs at the top of the trial's configuration, where Tune's own PBT and PB2 change them.
        keep: newest states each trial leaves on disk for others to go on from; None leaves all.
        limit: what all trials together may cost, by the name of a `Cost` field; see `Meter`.
        select_on: score of the regularization split that decides, "nll" or "accuracy".
    """

    specs: list[TrialSpec]
    knobs: list[Knobs] = field(default_factory=list)
    scheduler: Any = None
    searcher: Callable[[list[Knobs]], Any] | None = None
    space: dict[str, Any] | None = None
    num_samples: int = 1
    top_level: bool = False
    keep: int | None = 2
    limit: tuple[str, float] | None = None
    select_on: str = "nll"


@dataclass
class TrialResult:
    """What a trial did.

    Attributes:
        index: its place in the search.
        spec: what was trained.
        records: its intervals in the order they were trained, also those it gave up when it exploited another.
        states: where its states are.
        data: object reference of its data.
        error: why it ended early; None where it did not.
    """

    index: int
    spec: TrialSpec
    records: list[Record]
    states: States
    data: Any
    error: str | None = None

    @property
    def final(self) -> Record:
        """Its last interval."""
        return self.records[-1]

    @property
    def complete(self) -> bool:
        """Whether it reached its last step."""
        return bool(self.records) and self.final.until >= self.spec.steps

    @property
    def lineage(self) -> list[Record]:
        """The intervals that led to its last state, first to last."""
        return self.states.lineage(self.final.state)

    @property
    def cost(self) -> Cost:
        """What all of it cost."""
        return sum((record.cost for record in self.records), Cost())


class Proposals:
    """What a searcher proposed, on disk: its state is made anew from it when a search runs again."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def read(self) -> list[Knobs]:
        """Return all proposals in their order."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]

    def add(self, knobs: Knobs) -> None:
        """Append a proposal that is not there yet."""
        if knobs not in self.read():
            with self.path.open("a") as file:
                file.write(json.dumps(knobs) + "\n")


Watch = Callable[[int, TrialSpec, Record], None]


def run_search(
    search: Search,
    data: dict[str, Any],
    folder: Path,
    *,
    gpu: bool = False,
    cpus_per_trial: int = 1,
    max_failures: int = 3,
    verbose: bool = False,
    watch: Watch | None = None,
) -> list[TrialResult]:
    """Run trials and return what they did, in their order.

    Args:
        search: what to run.
        data: Ray object references of datasets, by fingerprint.
        folder: the search's own; intervals whose records are there are not trained again.
        gpu: one GPU a trial.
        cpus_per_trial: CPUs a trial reserves, and threads it uses.
        max_failures: lost workers that a trial survives.
        verbose: show Ray Tune's own messages.
        watch: called in this process with every interval as it ends.

    Raises:
        SearchError: a trial ended without a single interval.
    """
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from ray import tune
    from ray.tune import CheckpointConfig, FailureConfig, RunConfig

    from services.search.collector import ResultCollector
    from services.search.worker import EXHAUSTED, TrialWorker

    if not verbose:
        logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    if not search.specs:
        raise UserError("a search needs at least one trial")
    folder.mkdir(parents=True, exist_ok=True)
    (folder / EXHAUSTED).unlink(missing_ok=True)
    slots = int(_cluster_slots(gpu, cpus_per_trial))
    meter = None
    if search.limit is not None:
        meter = Meter(*search.limit, slots=slots, flag=folder / EXHAUSTED)
    states = States(folder / "states")
    proposals = Proposals(folder / "proposals.jsonl")
    listener = ResultCollector(search, data, states, meter, watch, proposals)
    resources = {"cpu": cpus_per_trial, **({"gpu": 1} if gpu else {})}
    trainable = tune.with_parameters(
        TrialWorker,
        specs=search.specs,
        data=data,
        folder=str(folder),
        keep=search.keep,
        gpu=gpu,
        select_on=search.select_on,
    )
    # a scheduler that was told what to look at refuses to be told again
    metric = None if getattr(search.scheduler, "metric", None) else "score"
    tuner = tune.Tuner(
        tune.with_resources(trainable, resources),
        param_space=_space(search),
        tune_config=tune.TuneConfig(
            metric=metric,
            mode=metric and "min",
            scheduler=search.scheduler,
            search_alg=search.searcher(proposals.read()) if search.searcher else None,
            num_samples=search.num_samples,
            reuse_actors=True,
            max_concurrent_trials=slots if search.searcher is not None else None,
        ),
        run_config=RunConfig(
            name="tune",
            storage_path=str(folder.resolve()),
            verbose=0,
            failure_config=FailureConfig(max_failures=max_failures),
            checkpoint_config=CheckpointConfig(num_to_keep=None),
            callbacks=[listener],
        ),
    )
    tuner.fit()
    results = listener.results()
    if search.searcher is None and len(results) < len(search.specs):
        missing = sorted(set(range(len(search.specs))) - {result.index for result in results})
        reason = next(iter(listener.errors.values()), "no reason was given")
        if len(missing) == len(search.specs) or meter is None:
            raise SearchError(f"trial {missing[0]} of {len(search.specs)} ended without a result: {reason}")
    return results


def _space(search: Search) -> dict[str, Any]:
    from ray import tune

    if search.searcher is not None:
        return {"trial": 0, **{tune_name(name): domain for name, domain in (search.space or {}).items()}}
    knobs = search.knobs or [{} for _ in search.specs]
    if search.top_level:
        # one grid over whole configurations would nest them; Tune's schedulers want knobs at the top
        names = sorted(knobs[0])
        return {
            "trial": tune.grid_search(list(range(len(search.specs)))),
            **{tune_name(name): tune.sample_from(_start_of([start[name] for start in knobs])) for name in names},
        }
    return {
        "trial": tune.grid_search(list(range(len(search.specs)))),
        "knobs": tune.sample_from(_start_of(knobs)),
        "state": None,
    }


def _start_of(values: list[Any]) -> Callable[[Any], Any]:
    return lambda config: values[config["trial"] if isinstance(config, dict) else config.config["trial"]]


def _cluster_slots(gpu: bool, cpus_per_trial: int) -> float:
    import ray

    resources = ray.cluster_resources()
    return max(1, resources.get("GPU", 0) if gpu else resources.get("CPU", 1) // cpus_per_trial)
