"""What to load and how to split it."""

from __future__ import annotations

from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field

__all__ = ["DataConfig"]


class DataConfig(BaseModel):
    """What to load and how to split it; frozen, unknown keys refused.

    Attributes:
        name: A known name (see `services.data.known`) or a path: image folder, .npz, .npy, .csv or .parquet.
        root: Folder where torchvision's datasets lie or are downloaded to.
        download: Fetch a missing torchvision dataset.
        reg_share: Share of the training examples held out as the regularization split, in [0, 0.5].
            None takes `default_reg_size`; 0 makes no regularization split.
        test_share: Share held out as the test split, in (0, 0.9); only for data that bring none.
        limit: Number of training examples to use in all (train and reg), drawn per class; None is all. The
            test split is always kept whole.
        target: Target column of a table; None takes the only column named target, label, y or class.
        seed: Fixes every random choice of the split.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    name: str = Field(min_length=1)
    root: Path = Path("data")
    download: bool = False
    reg_share: float | None = Field(default=None, ge=0, le=0.5)
    test_share: float = Field(default=0.2, gt=0, lt=0.9)
    limit: int | None = Field(default=None, ge=1)
    target: str | None = None
    seed: int = Field(default=0, ge=0, lt=2**63)
