"""Plain values for JSON, which has no NaN and no infinity: null stands for both, and is read back as NaN."""

from __future__ import annotations

import math
from typing import Any

__all__ = ["finite", "with_nan"]


def finite(value: Any) -> Any:
    """Return dictionaries, lists and numbers with None for every number that is not finite."""
    if isinstance(value, dict):
        return {key: finite(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [finite(one) for one in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def with_nan(value: Any) -> Any:
    """Return what `finite` was given, as far as it can be told: NaN for every None."""
    if isinstance(value, dict):
        return {key: with_nan(one) for key, one in value.items()}
    if isinstance(value, list | tuple):
        return [with_nan(one) for one in value]
    return math.nan if value is None else value
