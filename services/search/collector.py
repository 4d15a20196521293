"""Collecting what trials do, in the process that runs the search."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

from ray.tune import Callback

from crossreg.services.search.budget import Meter
from crossreg.services.search.search import Proposals, Search, TrialResult, Watch
from crossreg.services.search.spec import Record
from crossreg.services.search.trial import States

__all__ = ["ResultCollector"]


class ResultCollector(Callback):
    """A callback of Ray Tune that keeps every interval's record, meters it and passes it on.

    Attributes:
        errors: why trials ended early, by Tune's id.
    """

    def __init__(
        self,
        search: Search,
        data: dict[str, Any],
        states: States,
        meter: Meter | None,
        watch: Watch | None,
        proposals: Proposals,
    ) -> None:
        self.data = data
        self.proposals = proposals
        self.search, self.states, self.meter, self.watch = search, states, meter, watch
        self.records: dict[str, list[Record]] = {}
        self.trials: dict[str, Any] = {}
        self.places: dict[str, int] = {}
        self.errors: dict[str, str] = {}

    def __getstate__(self) -> dict[str, Any]:
        # Tune writes its callbacks to disk to restore them; nothing is restored here, and a console cannot be written
        return {}

    def on_trial_start(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep a trial's place, and what a searcher proposed."""
        # Tune's own schedulers copy a donor's configuration with its index
        self.places.setdefault(trial.trial_id, int(trial.config["trial"]))
        if self.search.searcher is not None:
            self.proposals.add({key: value for key, value in trial.config.items() if key != "trial"})

    def on_trial_result(
        self, iteration: int, trials: list[Any], trial: Any, result: dict[str, Any], **info: Any
    ) -> None:
        """Take an interval in."""
        if result.get("exhausted") or result.get("state") is None:
            return
        record = self.states.record(result["state"])
        assert record is not None
        self.trials[trial.trial_id] = trial
        self.records.setdefault(trial.trial_id, []).append(record)
        if self.meter is not None:
            self.meter.add(record, sum(not other.is_finished() for other in trials))
        if self.watch is not None:
            self.watch(self._index(trial), self.search.specs[trial.config["trial"]], record)

    def on_trial_error(self, iteration: int, trials: list[Any], trial: Any, **info: Any) -> None:
        """Keep the reason."""
        lines = Path(trial.error_file).read_text().splitlines() if trial.error_file else []
        named = [line for line in lines if re.match(r"[\w.]*(Error|Exception)\b", line)]
        self.errors[trial.trial_id] = named[-1] if named else "its worker was lost"

    def results(self) -> list[TrialResult]:
        """Return what the trials did that trained at least one interval, in their order."""
        found = [
            TrialResult(
                self._index(trial),
                self.search.specs[trial.config["trial"]],
                self.records[key],
                self.states,
                self.data[self.search.specs[trial.config["trial"]].data],
                self.errors.get(key) if str(trial.status) == "ERROR" else None,
            )
            for key, trial in self.trials.items()
        ]
        return sorted(found, key=lambda result: result.index)

    def _index(self, trial: Any) -> int:
        if self.search.searcher is None:
            return self.places[trial.trial_id]
        return list(self.trials).index(trial.trial_id)
