"""Trials one after another in this process, without Ray Tune."""

from __future__ import annotations

from pathlib import Path

import torch

from crossreg.core.errors import UserError
from crossreg.core.random import kept_rng_state
from crossreg.services.data import Dataset
from crossreg.services.search.budget import Meter
from crossreg.services.search.search import Search, SearchError, TrialResult, Watch
from crossreg.services.search.spec import Record, selection_score
from crossreg.services.search.trial import States, Trial
from crossreg.training.rules import stopping_rule

__all__ = ["require_plain", "search_here"]


def require_plain(search: Search, what: str) -> None:
    """Refuse what only Ray Tune can do.

    Raises:
        UserError: the search has a scheduler or a searcher.
    """
    if search.scheduler is not None or search.searcher is not None:
        raise UserError(f"{what} is Ray Tune's, and --workers 0 goes without Ray; use --workers 1, or other methods")


def search_here(
    search: Search, data: dict[str, Dataset], folder: Path, *, gpu: bool = False, watch: Watch | None = None
) -> list[TrialResult]:
    """Run trials and return what they did, in their order; see `crossreg.services.search.run.run_search`.

    Args:
        search: what to run; without a scheduler and a searcher, which are Ray Tune's.
        data: datasets, by fingerprint.
        folder: the search's own; intervals whose records are there are not trained again.
        gpu: on the current one.
        watch: called with every interval as it ends.

    Raises:
        UserError: the search is Ray Tune's.
        SearchError: a trial ended without a single interval.
    """
    require_plain(search, "this search")
    states, specs = States(folder / "states"), {spec.digest: spec for spec in search.specs}
    exhausted = folder / "exhausted"
    exhausted.unlink(missing_ok=True)
    meter = None if search.limit is None else Meter(*search.limit, slots=1, flag=exhausted)
    device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
    results: list[TrialResult] = []
    with kept_rng_state():
        for index, spec in enumerate(search.specs):
            trial = Trial(spec, specs, data, states, search.keep, device)
            trial.continue_from(None, search.starts[index] if search.starts else {})
            rule, records, error = stopping_rule(spec.config.stopping), list[Record](), None
            while not exhausted.exists():
                try:
                    record = trial.advance()
                except (UserError, RuntimeError, ArithmeticError) as failure:  # in a search it loses
                    error = f"{type(failure).__name__}: {failure}"
                    break
                records.append(record)
                if meter is not None:
                    meter.add(record, running=1)
                if watch is not None:
                    watch(index, spec, record)
                scores = [selection_score(one, search.select_on) for one in records]
                if record.last or (rule is not None and rule.should_stop(scores)):
                    break
            if records:
                results.append(TrialResult(index, spec, records, states, data[spec.data], error))
            elif meter is None or error is not None:
                raise SearchError(f"trial {index} of {len(search.specs)} ended without a result: {error}")
    return results
