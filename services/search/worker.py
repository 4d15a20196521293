"""A trial as Ray Tune runs it: one step is one interval, a checkpoint is the name of a state."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import ray
import torch
from ray import tune

from crossreg.services.data import Dataset
from crossreg.services.search.space import values_in
from crossreg.services.search.spec import Record, TrialSpec, Values, selection_score
from crossreg.services.search.trial import States, Trial
from crossreg.training.rules import stopping_rule

__all__ = ["EXHAUSTED", "TrialWorker"]

EXHAUSTED = "exhausted"
"""A file of this name in the search's folder says that its budget is spent: trials end without training on."""


class TrialWorker(tune.Trainable):
    """Runs trials of one search on one worker, one after another.

    Its configuration holds `trial` (index of the specification), values of hyperparameters in force (see
    `crossreg.services.search.space.values_in`), and `state` to go on from (None is the beginning). Schedulers that
    clone through checkpoints do so too: a checkpoint names a state.
    """

    def setup(
        self,
        config: dict[str, Any],
        *,
        specs: list[TrialSpec],
        data: dict[str, Any],
        folder: str,
        keep: int | None,
        gpu: bool,
        select_on: str,
    ) -> None:
        """Fetch the data, which all workers of a machine share, and take the trial up."""
        torch.set_num_threads(max(1, int(ray.get_runtime_context().get_assigned_resources().get("CPU", 1))))
        self.specs = specs
        self.data: dict[str, Dataset] = {key: ray.get(reference) for key, reference in data.items()}
        self.folder, self.keep, self.select_on = Path(folder), keep, select_on
        self.device = torch.device("cuda", torch.cuda.current_device()) if gpu else torch.device("cpu")
        self.trial: Trial | None = None
        self.scores: list[float] = []
        self._take(config)

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Take another trial up."""
        self._take(new_config)
        return True

    def continue_from(self, state: str | None, values: Values) -> None:
        """Go on from another state with other values, at the next step."""
        assert self.trial is not None
        self.trial.continue_from(state, values)

    def step(self) -> dict[str, Any]:
        """Train one interval."""
        assert self.trial is not None
        if (self.folder / EXHAUSTED).exists():
            # finite, since schedulers take percentiles of it
            score = self.scores[-1] if self.scores else 1e9
            return {"state": self.trial.state, "score": score, "done": True, "exhausted": True}
        record = self.trial.advance()
        score = selection_score(record, self.select_on)
        self.scores = [*self.scores[: self._interval(record) - 1], score]
        return {
            "state": record.state,
            "score": score,
            "training_iteration": self._interval(record),
            "done": record.last or self._stopped(),
        }

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """Return the name of the state."""
        assert self.trial is not None
        return {"state": self.trial.state}

    def load_checkpoint(self, checkpoint: dict[str, Any] | None) -> None:
        """Go on from a named state; the values stay those of the configuration, which a search may have changed."""
        assert self.trial is not None
        if checkpoint is not None:
            self.trial.continue_from(checkpoint["state"], self.trial.given)

    def _take(self, config: dict[str, Any]) -> None:
        spec = self.specs[config["trial"]]
        if self.trial is None or self.trial.spec.digest != spec.digest:
            specs = {other.digest: other for other in self.specs}
            self.trial = Trial(spec, specs, self.data, States(self.folder / "states"), self.keep, self.device)
        self.trial.continue_from(config.get("state"), values_in(config))
        self.scores = []

    def _interval(self, record: Record) -> int:
        assert self.trial is not None
        return math.ceil(record.until / self.trial.spec.interval)

    def _stopped(self) -> bool:
        """Ask the configuration's stopping rule."""
        assert self.trial is not None
        rule = stopping_rule(self.trial.spec.config.stopping)
        return rule is not None and rule.should_stop(self.scores)
