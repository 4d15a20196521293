"""What to load and how to split it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

from pydantic import Field

from services.data.bundled import BUNDLED
from services.data.vision import VISION
from services.settings import Flag, Settings

__all__ = ["DataConfig", "known"]


def known() -> dict[str, str]:
    """Return the names that can be loaded without a file of one's own, each with a one-line description."""
    return BUNDLED | VISION


class DataConfig(Settings):
    """What to load and how to split it."""

    name: Annotated[str, Flag("data")] = Field(
        min_length=1,
        description=f"{', '.join(known())}, or a path: image folder, .npz, .npy, .csv, .parquet.",
    )
    root: Annotated[Path, Flag("data-root")] = Field(
        default=Path("data"), description="Folder where torchvision's datasets lie or are downloaded to."
    )
    download: Annotated[bool, Flag()] = Field(default=False, description="Fetch a missing torchvision dataset.")
    reg_share: Annotated[float | None, Flag(default="10 %, within 100 to 5,000 examples, at most a quarter")] = Field(
        default=None,
        ge=0,
        le=0.5,
        description="Share of the training examples held out as the regularization split; 0 makes none.",
    )
    test_share: float = Field(
        default=0.2, gt=0, lt=0.9, description="Share held out as the test split, of data that bring none."
    )
    limit: Annotated[int | None, Flag(default="all")] = Field(
        default=None, ge=1, description="Use only so many training examples, drawn per class; the test split stays."
    )
    target: Annotated[str | None, Flag(default="the only one named target, label, y or class")] = Field(
        default=None, description="Target column of a table."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Fixes every random choice of the split.")
