"""What every configuration is: a frozen object that refuses unknown keys, and whose fields may be flags."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, get_args

from pydantic import BaseModel, BeforeValidator, ConfigDict, ValidationInfo, field_validator

from crossreg.core.plain import with_nan

__all__ = ["MOST", "Flag", "NullIsNan", "Scores", "Settings"]

MOST = 10**9
"""Of anything that is counted: more is a slip of the keyboard, and overflows further on."""

NullIsNan = BeforeValidator(with_nan)
"""Marks a field of measured numbers: what is not finite is null in JSON, and null is read as NaN."""
Scores = Annotated[dict[str, float], NullIsNan]
"""Measured numbers by name."""


@dataclass(frozen=True)
class Flag:
    """Marks a field as a flag of the command line; its help is the field's description.

    Attributes:
        name: without the dashes; None takes the field's name.
        default: what is taken where nothing is given, in words; None says the field's default.
        negated: a switch that can also be turned off, `--no-...`.
        text: what help shows for a value that is read as text, and that the configuration makes something of.
    """

    name: str | None = None
    default: str | None = None
    negated: bool = False
    text: str | None = None


class Settings(BaseModel):
    """A frozen configuration: unknown keys, NaN and infinity are refused."""

    # NaN and infinity are numbers in YAML, and pass bounds such as "greater than 0"
    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)

    @field_validator("*", mode="before")
    @classmethod
    def _no_number(cls, value: Any, info: ValidationInfo) -> Any:
        annotation = cls.model_fields[info.field_name or ""].annotation
        if isinstance(value, bool) and bool not in (annotation, *get_args(annotation)):
            raise ValueError("true and false are for switches alone")  # to Python, true is the number 1
        return value
