"""From a YAML file and command-line flags to validated configurations, with errors that name the value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from crossreg.errors import UserError

__all__ = ["merge", "nest", "read_yaml", "section", "validated"]

Model = TypeVar("Model", bound=BaseModel)


def nest(flat: Mapping[str, Any]) -> dict[str, Any]:
    """Turn `{"data.seed": 1}` into `{"data": {"seed": 1}}`, leaving out values of None (flags not given)."""
    result: dict[str, Any] = {}
    for path, value in flat.items():
        if value is None:
            continue
        *parents, name = path.split(".")
        place = result
        for parent in parents:
            place = place.setdefault(parent, {})
        place[name] = value
    return result


def merge(base: Mapping[str, Any], over: Mapping[str, Any]) -> dict[str, Any]:
    """Return `base` with the values of `over` in their places, section by section."""
    result = dict(base)
    for name, value in over.items():
        known = result.get(name)
        result[name] = merge(known, value) if isinstance(known, dict) and isinstance(value, Mapping) else value
    return result


def read_yaml(path: Path) -> dict[str, Any]:
    """Return the mapping that a YAML file holds.

    Raises:
        UserError: no such file, or not a mapping.
    """
    try:
        content = yaml.safe_load(path.read_text())
    except OSError as error:
        raise UserError(f"config file {str(path)!r} cannot be read: {error.strerror}") from error
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise UserError(f"config file {str(path)!r} is not YAML: {error}") from error
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"config file {str(path)!r} must hold a mapping of settings, e.g. 'model: cnn'")
    return content


def section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Take a section of settings out of a file's content; an empty one is as if it were not there.

    Raises:
        UserError: the section is not a mapping.
    """
    content = settings.pop(name, None)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(f"section {name!r} is {content!r}; it must hold settings of its own, e.g. '{name}: {{...}}'")
    return content


def validated(kind: type[Model], values: Mapping[str, Any]) -> Model:
    """Return the configuration object.

    Raises:
        UserError: the first invalid value, what was given and what is allowed; the nearest name of an unknown key.
    """
    try:
        return kind.model_validate(values)
    except ValidationError as error:
        raise UserError("; ".join(_explain(kind, problem) for problem in error.errors()[:3])) from None


def _explain(kind: type[BaseModel], problem: Any) -> str:
    path = [str(part) for part in problem["loc"]]
    name = ".".join(path)
    if problem["type"] == "extra_forbidden":
        allowed = _fields(kind, path[:-1])
        close = difflib.get_close_matches(path[-1], allowed, n=1)
        hint = f"did you mean {close[0]!r}? " if close else ""
        return f"unknown setting {name!r}; {hint}allowed are {', '.join(allowed)}"
    if problem["type"] == "missing":
        return f"setting {name!r} is missing"
    message = problem["msg"].removeprefix("Value error, ")
    return message if not name else f"{name} is {problem['input']!r}: {message[0].lower()}{message[1:]}"


def _fields(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        annotation = kind.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
