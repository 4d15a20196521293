"""What an experiment of the source paper is: a study whose claims are the paper's, with its numbers beside ours."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar, Literal

from crossreg.core.errors import UserError
from crossreg.services.data import DataConfig, Dataset, load_data
from crossreg.studies.claims import Claim
from crossreg.studies.paper.pictures import PICTURES
from crossreg.studies.study import Measurement, Study
from crossreg.studies.zero_flag.pairs import prepare

__all__ = ["Experiment", "Outcome"]

Outcome = Literal["reproduced", "partly reproduced", "not reproduced", "left open by the paper", "not judged"]


class Experiment(Study):
    """An experiment of the paper at one of two scales.

    Args:
        data: where torchvision's datasets lie; the study's own files go beside them.
        only: none; it has no parts.
        scale: "small" takes less than a quarter of an hour on two CPU cores; "paper" wants a GPU.

    Attributes:
        claims: the paper's, in the order in which they are told; those without its numbers are this project's own, and
            do not count for the outcome.
        pictures: names of the image files that it takes, by scale; see `PICTURES`.
        deviations: from the paper, in sentences.
    """

    default_data = "pictures"
    resumable = True
    scales: ClassVar[tuple[str, ...]] = ("small", "paper")
    claims: ClassVar[tuple[Claim, ...]] = ()
    pictures: ClassVar[dict[str, tuple[str, ...]]] = {}
    deviations: ClassVar[tuple[str, ...]] = ()

    def __init__(self, data: DataConfig | None = None, only: Sequence[str] = (), scale: str | None = None) -> None:
        super().__init__(data, only, scale)
        if data is not None and data.name != self.default_data:
            raise UserError(f"study {self.name!r} takes no other data than its own; leave out --data {data.name}")

    @property
    def root(self) -> Path:
        """Folder of torchvision's datasets."""
        assert self.data is not None
        return self.data.root

    def prepare(self) -> None:
        """Write the files of images, unless they are there."""
        assert self.data is not None
        for name in self.pictures.get(self.scale, ()):
            prepare(PICTURES[name], self.root / "paper", self.data)

    def load(self, name: str, root: str, seed: int, **settings: Any) -> Dataset:
        """Return images, split by a seed.

        Args:
            name: of `PICTURES`.
            root: that of the case.
            seed: of the split.
            settings: of `DataConfig` beside.
        """
        config = PICTURES[name].config(Path(root) / "paper", seed)
        return load_data(config.model_copy(update=settings))

    def outcome(self, rows: list[Measurement]) -> Outcome:
        """Say how much of what the paper claims was seen here."""
        if not any(claim.source for claim in self.claims):
            return "left open by the paper"
        judged = [verdict.shown for one in self.claims if one.source and (verdict := one.judge(rows)) is not None]
        if not judged:
            return "not judged"
        return "reproduced" if all(judged) else "partly reproduced" if any(judged) else "not reproduced"

    def findings(self, rows: list[Measurement]) -> list[str]:
        """Return the outcome, then a sentence a claim with the paper's number beside ours."""
        found = [f"{self.outcome(rows)} at scale {self.scale}"]
        for claim in self.claims:
            verdict = claim.judge(rows)
            if verdict is not None:
                paper = f"paper: {claim.source}; here: " if claim.source else "here: "
                found.append(f"{claim.text}: {'shown' if verdict.shown else 'not shown'} ({paper}{verdict.evidence})")
        return found

    def shown(self, rows: list[Measurement]) -> dict[str, float]:
        """Return by metric name which claims were shown."""
        judged = {one.name: one.judge(rows) for one in self.claims}
        return {f"shown/{name}": float(verdict.shown) for name, verdict in judged.items() if verdict is not None}
