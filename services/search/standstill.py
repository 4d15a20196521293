"""A search that stands still says what its trials wait for."""

from __future__ import annotations

import logging
import time
from typing import Any

from ray.tune import Callback

__all__ = ["StandstillWarning"]

FIRST_SECONDS = 60.0
"""That no trial runs, though some wait, until it is said."""
AGAIN_SECONDS = 300.0
"""From one warning to the next."""

_log = logging.getLogger(__name__)


class StandstillWarning(Callback):
    """A callback of Ray Tune that warns when trials wait and none runs: somebody else holds what they need.

    Tune asks for room and waits for as long as it takes; its own warning compares with the whole cluster, and is
    silent when that would be large enough.
    """

    def __init__(self) -> None:
        self.since: float | None = None
        self.due = 0.0

    def __getstate__(self) -> dict[str, Any]:
        return {}  # Tune writes its callbacks to disk; nothing is restored

    def on_step_end(self, iteration: int, trials: list[Any], **info: Any) -> None:
        """Look at the trials; Tune calls this ten times a second also while nothing happens."""
        now = time.monotonic()
        waiting = [trial for trial in trials if trial.status in (trial.PENDING, trial.PAUSED)]
        if not waiting or any(trial.status == trial.RUNNING for trial in trials):
            if self.since is not None and self.due > self.since + FIRST_SECONDS:
                _log.warning("the search goes on after %.0f s", now - self.since)
            self.since = None
        elif self.since is None:
            self.since, self.due = now, now + FIRST_SECONDS
        elif now >= self.due:
            self.due = now + AGAIN_SECONDS
            _log.warning("no trial has run for %.0f s: %s", now - self.since, _reason(waiting))


def _reason(waiting: list[Any]) -> str:
    import ray
    from ray.util import placement_group_table

    number = f"{len(waiting)} {'trial waits' if len(waiting) == 1 else 'trials wait'}"
    if all(group["state"] != "PENDING" for group in placement_group_table().values()):
        return f"{number} for a worker process, which Ray has not started yet"
    asked: dict[str, float] = waiting[0].placement_group_factory.required_resources
    free, there = ray.available_resources(), ray.cluster_resources()
    needs = " and ".join(
        f"{amount:g} {name} on one machine, of which {free.get(name, 0):g} of the cluster's {there.get(name, 0):g} "
        f"{'is' if free.get(name, 0) == 1 else 'are'} free"
        for name, amount in asked.items()
        if amount
    )
    return f"{number} for {needs}; it goes on once whoever holds the rest gives it back"
