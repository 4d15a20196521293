"""What to load and how to split it."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from crossreg.core.errors import UserError
from crossreg.inputs.sequence import TimeAxis
from crossreg.services.data.bundled import BUNDLED
from crossreg.services.data.sequences import SEQUENCES
from crossreg.services.data.vision import VISION
from crossreg.services.settings import Flag, Settings

__all__ = ["KEYS", "DataConfig", "known", "require_fitting"]

KEYS = ("x", "y", "x_test", "y_test", "lengths", "lengths_test")
"""Arrays of an .npz by what they are."""

ColumnKind = Literal["number", "boolean", "category", "date"]


def known() -> dict[str, str]:
    """Return the names that can be loaded without a file of one's own, each with a one-line description."""
    return BUNDLED | SEQUENCES | VISION


class DataConfig(Settings):
    """What to load and how to split it."""

    name: Annotated[str, Flag("data")] = Field(
        min_length=1,
        description=f"{', '.join(known())}; or a path: image folder, .npz, .npy, .ts, .csv, .tsv, .parquet; or a "
        "function of your own, package.module:function.",
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
    task: Annotated[Literal["classification", "regression"] | None, Flag(default="as the targets are")] = Field(
        default=None, description="Take the targets as classes or as a quantity."
    )
    drop: Annotated[tuple[str, ...], Flag(default="none")] = Field(
        default=(), description="Columns of a table that the model does not get."
    )
    kinds: Annotated[dict[str, ColumnKind], Flag("kind", default="as the values are")] = Field(
        default={}, description="Read columns of a table as number, boolean, category or date, e.g. zip=category."
    )
    split_by: Annotated[str | None, Flag(default="splits are drawn")] = Field(
        default=None,
        description="Column (or array) of groups, such as persons or recordings: none is in two splits.",
    )
    time_order: Annotated[str | None, Flag(default="splits are drawn")] = Field(
        default=None, description="Column (or array) to order by: train comes first, then reg, then test."
    )
    time_axis: Annotated[TimeAxis | None, Flag(default="the longer one")] = Field(
        default=None,
        description="Which axis of an example of two, a sequence in an .npz, is time; given, rows of one axis are "
        "sequences too. Values along the other have a mean and a deviation of their own.",
    )
    window: Annotated[int | None, Flag(default="whole recordings; 100 for `watch`")] = Field(
        default=None, ge=1, description="Cut sequences into windows of so many steps, each an example."
    )
    hop: Annotated[int | None, Flag(default="a window")] = Field(
        default=None, ge=1, description="Steps from the start of a window to that of the next."
    )
    image_size: Annotated[int | None, Flag(default="that of the files, which must be one")] = Field(
        default=None, ge=1, le=4096, description="Bring image files to N x N pixels, cut in the middle."
    )
    stream: Annotated[bool | None, Flag(negated=True)] = Field(
        default=None,
        description="Read the training examples of an image folder or a Parquet file from disk while training. "
        "Default: where they would take more than a fifth of free memory.",
    )
    raw: Annotated[bool, Flag()] = Field(default=False, description="Do not standardize inputs.")
    keys: Annotated[dict[str, str], Flag(default="x, y, x_test, y_test, lengths")] = Field(
        default={}, description="Names of the arrays in an .npz, e.g. x=images,y=labels."
    )
    seed: int = Field(default=0, ge=0, lt=2**63, description="Fixes every random choice of the split.")

    @model_validator(mode="after")
    def _one_way_to_split(self) -> Self:
        if self.split_by is not None and self.time_order is not None:
            raise ValueError("split_by and time_order are both given, and splits are made in one way; leave one out")
        if self.hop is not None and self.window is None and self.name != "watch":
            raise ValueError(f"hop is {self.hop}, and no window is given; give --window too")
        if unknown := sorted(self.keys.keys() - set(KEYS)):
            raise ValueError(f"keys names {unknown[0]!r}; allowed are {', '.join(KEYS)}, as in x=images,y=labels")
        return self


def require_fitting(config: DataConfig, fits: bool, what: str, *settings: str) -> None:
    """Refuse settings that the data have no use for, rather than let them be.

    Args:
        config: the settings.
        fits: whether the data are of the kind that these are for.
        what: that kind, in words.
        settings: names of fields.

    Raises:
        UserError: one is given, and the data are of another kind.
    """
    for name in settings:
        value = getattr(config, name)
        if value and not fits:
            raise UserError(f"{name}={value!r} is for {what} only; {config.name!r} is none")
