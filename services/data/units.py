"""In which unit a number about a target is said: its own, where there is one target."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

__all__ = ["TargetUnit"]


@dataclass(frozen=True)
class TargetUnit:
    """The unit of errors of predicted numbers.

    Inside, a target is standardized, and an RMSE counts standard deviations. People think in the target's own unit.
    Several targets have none in common.

    Attributes:
        std: standard deviation of each target in the training split, in its own unit.
        name: the target's column; "" where it has no name.
    """

    std: Sequence[float]
    name: str = ""

    @property
    def target(self) -> str:
        """The target, or targets, as a sentence has them."""
        named = f" `{self.name}`" if self.name not in ("", "target") else ""
        return f"the target{named}" if len(self.std) == 1 else "the targets"

    @property
    def text(self) -> str:
        """What stands behind a number that `own` returned."""
        if len(self.std) != 1:
            return f"in standard deviations of {self.target}"
        return f"in units of {self.target}, whose standard deviation is {self.std[0]:.3g}"

    @property
    def standardized(self) -> str:
        """What stands behind a number that counts standard deviations."""
        one = f", of which one is {self.std[0]:.3g}" if len(self.std) == 1 else ""
        return f"in standard deviations of {self.target}{one}"

    def own(self, value: float) -> str:
        """Return a number of standard deviations in the target's own unit."""
        return f"{value * self.std[0]:.4g}" if len(self.std) == 1 else f"{value:.4f}"
