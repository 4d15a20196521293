"""A study on pairs of data and network."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import ClassVar

from crossreg.core.errors import UserError, nearest
from crossreg.services.data import DataConfig
from crossreg.studies.study import Study
from crossreg.studies.zero_flag.pairs import PAIRS, prepare

__all__ = ["OnPairs"]


class OnPairs(Study):
    """Measures the same on each of several pairs; a finished case is kept.

    Args:
        data: where torchvision's datasets lie; the pairs' own files go beside them.
        only: names of pairs; none takes those of the study.

    Attributes:
        pairs: those that it takes if none are named.

    Raises:
        UserError: a pair that there is not.
    """

    default_data = "pairs"
    resumable = True
    has_pairs = True
    pairs: ClassVar[tuple[str, ...]] = tuple(name for name, pair in PAIRS.items() if not pair.large)

    def __init__(self, data: DataConfig | None = None, only: Sequence[str] = (), scale: str | None = None) -> None:
        super().__init__(data, only, scale)
        if unknown := [name for name in only if name not in PAIRS]:
            listed = ", ".join(PAIRS)
            raise UserError(f"no pair is called {unknown[0]!r}{nearest(unknown[0], PAIRS)}; there are {listed}")
        self.only = tuple(only) or self.pairs

    @property
    def root(self) -> Path:
        """Folder of torchvision's datasets."""
        assert self.data is not None
        return self.data.root

    @staticmethod
    def files(root: Path) -> Path:
        """Return the folder of the pairs' files."""
        return root / "zero-flag"

    def prepare(self) -> None:
        """Write the files of the pairs, unless they are there."""
        assert self.data is not None
        for name in self.only:
            prepare(PAIRS[name], self.files(self.root), self.data)
