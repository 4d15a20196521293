"""A nested configuration as MLflow parameters."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from enum import Enum
from itertools import count, takewhile
from typing import Any

from pydantic import BaseModel

from crossreg.services.tracking.uri import redact

__all__ = ["MAX_TAG", "clip", "flatten", "from_tags", "in_tags", "split_changed"]

MAX_PARAM = 6000
MAX_TAG = 8000


def clip(text: str, limit: int) -> str:
    """Cut a text to a limit of characters; the end shows that it was cut."""
    return text if len(text) <= limit else text[: limit - 1] + "…"


def in_tags(key: str, text: str) -> dict[str, str]:
    """Return a text of any length as tags: under the key, and what is too long for one under `key.1` and so on."""
    pieces = [text[start : start + MAX_TAG] for start in range(0, max(len(text), 1), MAX_TAG)]
    return {f"{key}.{index}" if index else key: piece for index, piece in enumerate(pieces)}


def from_tags(tags: Mapping[str, str], key: str) -> str | None:
    """Return the text that `in_tags` put there, or None."""
    if key not in tags:
        return None
    rest = takewhile(lambda name: name in tags, (f"{key}.{index}" for index in count(1)))
    return "".join(tags[name] for name in (key, *rest))


def flatten(config: Mapping[str, Any] | BaseModel, prefix: str = "") -> dict[str, str]:
    """Return a nested configuration as `{"data.name": "cifar10", ...}`: dotted names, clipped text values.

    Lists become JSON; secrets inside URIs are hidden.
    """
    if isinstance(config, BaseModel):
        config = config.model_dump(mode="json")
    flat: dict[str, str] = {}
    for key, value in config.items():
        name = prefix + re.sub(r"[^\w.\- :/]", "_", str(key))
        if isinstance(value, BaseModel):
            value = value.model_dump(mode="json")
        if isinstance(value, Mapping) and value:
            flat |= flatten(value, f"{name}.")
        else:
            flat[name[:250]] = clip(redact(_text(value)), MAX_PARAM)
    return flat


def _text(value: Any) -> str:
    if isinstance(value, Enum):
        return str(value.value)
    if isinstance(value, list | tuple | Mapping):
        return json.dumps(value, default=str)
    return str(value)


def split_changed(params: dict[str, str], recorded: Mapping[str, str]) -> tuple[dict[str, str], dict[str, str]]:
    """Return `(new, changed)` against what a run has recorded: MLflow refuses to change a parameter."""
    new = {key: value for key, value in params.items() if key not in recorded}
    changed = {key: value for key, value in params.items() if recorded.get(key, value) != value}
    return new, changed
