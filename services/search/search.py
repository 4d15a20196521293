"""What a search is: the trials it runs, what they did, and what it proposed."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from crossreg.services.search.spec import Record, TrialSpec, Values
from crossreg.services.search.trial import States
from crossreg.training.compute import Cost

__all__ = ["Proposals", "Search", "SearchError", "TrialResult", "Watch"]


class SearchError(RuntimeError):
    """A trial ended without a result; the message says which and why."""


@dataclass
class Search:
    """Trials to run together.

    Attributes:
        specs: what is trained, one a trial; a searcher that proposes values takes the first for all.
        starts: values of each trial's hyperparameters at its start; empty dicts where the specification says it all.
        scheduler: of Ray Tune; None lets every trial run to its end.
        searcher: makes a searcher of Ray Tune, which proposes values (`starts` is not used then); it is given those
            that were proposed when the search ran before.
        space: Tune's search space by key of a trial's configuration, for a searcher; see
            `crossreg.services.search.space`.
        num_samples: trials of a searcher.
        top_level: put `starts` at the top of the trial's configuration, under the keys that they have, where Tune's own
            PBT and PB2 change them.
        keep: newest states each trial leaves on disk for others to go on from; None leaves all.
        limit: what all trials together may cost, by the name of a `Cost` field; see `Meter`.
        select_on: score of the regularization split that decides, "nll" or "accuracy".
    """

    specs: list[TrialSpec]
    starts: list[Values] = field(default_factory=list)
    scheduler: Any = None
    searcher: Callable[[list[Values]], Any] | None = None
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
        data: object reference of its data, or without Ray the data.
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
        return bool(self.records) and self.final.last

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

    def read(self) -> list[Values]:
        """Return all proposals in their order, under the keys of a trial's configuration."""
        if not self.path.exists():
            return []
        return [json.loads(line) for line in self.path.read_text().splitlines() if line.endswith("}")]

    def add(self, proposal: Values) -> None:
        """Append a proposal that is not there yet."""
        if proposal not in self.read():
            with self.path.open("a") as file:
                file.write(json.dumps(proposal) + "\n")


Watch = Callable[[int, TrialSpec, Record], None]
"""Is told the place of a trial, what it trains and an interval that has ended."""
