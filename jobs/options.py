"""From a YAML file and command-line flags to validated configurations, with errors that name the value."""

from __future__ import annotations

import difflib
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

import yaml
from pydantic import BaseModel, ValidationError

from crossreg.core.errors import UserError, quoted
from crossreg.services.tracking.uri import redact

__all__ = ["merge", "nest", "read_yaml", "section", "validated"]

Model = TypeVar("Model", bound=BaseModel)

_LARGEST_FILE = 2**20  # bytes
_MOST_VALUES, _DEEPEST = 10_000, 20


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
        UserError: no such file, one too large or too deep for settings, or not a mapping.
    """
    try:
        with path.open("rb") as file:
            raw = file.read(_LARGEST_FILE + 1)
        if len(raw) > _LARGEST_FILE:
            raise UserError(
                f"config file {quoted(str(path))} has more than {_LARGEST_FILE:,} bytes; is it a file of settings?"
            )
        content = yaml.safe_load(raw.decode())
    except OSError as error:
        raise UserError(f"config file {quoted(str(path))} cannot be read: {error.strerror}") from error
    except RecursionError:
        raise _too_much(path) from None
    # a date or a number that is none is a plain ValueError to PyYAML, and a key that cannot be one a TypeError
    except (yaml.YAMLError, ValueError, TypeError) as error:
        if isinstance(error, UserError):
            raise
        raise UserError(f"config file {quoted(str(path))} is not YAML: {_oneline(error)}") from error
    if _values(content, _DEEPEST) > _MOST_VALUES:
        raise _too_much(path)
    if content is None:
        return {}
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise UserError(f"config file {quoted(str(path))} must hold a mapping of settings, e.g. 'model: cnn'")
    return content


def _values(content: Any, depth: int) -> int:
    """Count values as if each alias were written out; more than allowed where they nest too deep, or in themselves.

    A few lines of aliases of aliases stand for billions of values, which the first message about them would print.
    """
    if not isinstance(content, dict | list):
        return 1
    total = 1
    for value in content.values() if isinstance(content, dict) else content:
        total += _values(value, depth - 1) if depth else _MOST_VALUES
        if total > _MOST_VALUES:
            break
    return total


def _too_much(path: Path) -> UserError:
    return UserError(
        f"config file {quoted(str(path))} nests deeper than {_DEEPEST} levels or holds more than {_MOST_VALUES:,} "
        "values, aliases written out; settings need far fewer"
    )


def _oneline(error: Exception) -> str:
    return " ".join(str(error).split())[:300]


def section(settings: dict[str, Any], name: str) -> dict[str, Any]:
    """Take a section of settings out of a file's content; an empty one is as if it were not there.

    Raises:
        UserError: the section is not a mapping.
    """
    content = settings.pop(name, None)
    if content is None:
        return {}
    if not isinstance(content, dict):
        raise UserError(
            f"section {name!r} is {quoted(content)}; it must hold settings of its own, e.g. '{name}: {{...}}'"
        )
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
    if not name or (problem["type"] == "value_error" and isinstance(problem["input"], dict | list)):
        return message  # about a whole section, which it names itself
    message = f"{message[0].lower()}{message[1:]}"
    if problem["type"] == "value_error" and kind.model_config.get("hide_input_in_errors"):
        return f"{name}: {message}"  # a tracking URI, of which the message says what may be shown
    return f"{name} is {redact(quoted(problem['input']))}: {message}"


def _fields(kind: type[BaseModel], path: list[str]) -> list[str]:
    for part in path:
        if part not in kind.model_fields:  # a key of a mapping
            return []
        annotation = kind.model_fields[part].annotation
        if not (isinstance(annotation, type) and issubclass(annotation, BaseModel)):
            return []
        kind = annotation
    return list(kind.model_fields)
