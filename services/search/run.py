"""Running trials on Ray Tune: as many at a time as the cluster has room for, never more."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError
from crossreg.services.search.budget import Meter
from crossreg.services.search.here import search_here
from crossreg.services.search.search import Proposals, Search, SearchError, TrialResult, Watch
from crossreg.services.search.trial import States

__all__ = ["run_search"]

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
        data: Ray object references of datasets, by fingerprint; without Ray the datasets.
        folder: the search's own; intervals whose records are there are not trained again.
        gpu: one GPU a trial.
        cpus_per_trial: CPUs a trial reserves, and threads it uses; 0 runs one after another in this process, without
            Ray.
        max_failures: lost workers that a trial survives.
        verbose: show Ray Tune's own messages.
        watch: called in this process with every interval as it ends.

    Raises:
        SearchError: a trial ended without a single interval.
    """
    if cpus_per_trial == 0:
        return search_here(search, data, folder, gpu=gpu, watch=watch)
    for name, value in _ENVIRONMENT.items():
        os.environ.setdefault(name, value)
    from crossreg.services.search.collector import ResultCollector
    from crossreg.services.search.worker import EXHAUSTED

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
    proposals = Proposals(folder / "proposals.jsonl")
    collector = ResultCollector(search, data, States(folder / "states"), meter, watch, proposals)
    resources = {"cpu": cpus_per_trial, **({"gpu": 1} if gpu else {})}
    _tuner(search, data, folder, resources, slots, max_failures, proposals, collector).fit()
    results = collector.results()
    if search.searcher is None and len(results) < len(search.specs):
        missing = sorted(set(range(len(search.specs))) - {result.index for result in results})
        reason = next(iter(collector.errors.values()), "no reason was given")
        if len(missing) == len(search.specs) or meter is None:
            raise SearchError(f"trial {missing[0]} of {len(search.specs)} ended without a result: {reason}")
    return results


def _tuner(
    search: Search,
    data: dict[str, Any],
    folder: Path,
    resources: dict[str, int],
    slots: int,
    max_failures: int,
    proposals: Proposals,
    collector: Any,
) -> Any:
    """Return Ray Tune's tuner of a search; see `run_search`."""
    from ray import tune
    from ray.tune import CheckpointConfig, FailureConfig, RunConfig

    from crossreg.services.search.standstill import StandstillWarning
    from crossreg.services.search.worker import TrialWorker

    trainable = tune.with_parameters(
        TrialWorker,
        specs=search.specs,
        data=data,
        folder=str(folder),
        keep=search.keep,
        gpu="gpu" in resources,
        select_on=search.select_on,
    )
    # a scheduler that was told what to look at refuses to be told again
    metric = None if getattr(search.scheduler, "metric", None) else "score"
    return tune.Tuner(
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
            callbacks=[collector, StandstillWarning()],
        ),
    )


def _space(search: Search) -> dict[str, Any]:
    from ray import tune

    if search.searcher is not None:
        return {"trial": 0, **(search.space or {})}
    starts = search.starts or [{} for _ in search.specs]
    trials = tune.grid_search(list(range(len(search.specs))))
    if search.top_level:
        # one grid over whole configurations would nest them; Tune's schedulers want values at the top
        return {
            "trial": trials,
            **{key: tune.sample_from(_start_of([start[key] for start in starts])) for key in sorted(starts[0])},
        }
    return {"trial": trials, "hyperparameters": tune.sample_from(_start_of(starts)), "state": None}


def _start_of(values: list[Any]) -> Callable[[Any], Any]:
    return lambda config: values[config["trial"] if isinstance(config, dict) else config.config["trial"]]


def _cluster_slots(gpu: bool, cpus_per_trial: int) -> float:
    import ray

    resources = ray.cluster_resources()
    return max(1, resources.get("GPU", 0) if gpu else resources.get("CPU", 1) // cpus_per_trial)
