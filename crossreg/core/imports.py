"""Functions of the user, by the name they are imported under."""

from __future__ import annotations

import importlib
import importlib.machinery
import pkgutil
import sys
from collections.abc import Callable
from operator import attrgetter
from pathlib import Path
from typing import Any

from crossreg.core.errors import UserError, nearest

__all__ = ["give_function", "hidden_by", "import_function"]

_given: dict[str, Callable[..., Any]] = {}


def give_function(name: str, function: Callable[..., Any]) -> None:
    """Let a name of the form `package.module:function` stand for a function that only this process has."""
    _given[name] = function


def import_function(name: str, what: str, expected: str) -> Callable[..., Any]:
    """Return what was given under a name, or import `package.module:function` from what is installed, else from here.

    Here is the working directory. It goes last on the path, so that a folder of yours called as a package (`jobs`,
    `queue`) hides nothing from others. It stays there: imports inside your functions, and unpickling, find the same
    modules later.

    Args:
        name: `package.module:function`; a class, or `class.method`, works too.
        what: names it in messages: "model", "data".
        expected: what the function has to be, for messages.

    Raises:
        UserError: It is no such name, cannot be imported, or is no function; the exception behind it is chained. Where
            an installed package hides yours, the message says so.
    """
    if name in _given:
        return _given[name]
    path, _, attribute = name.partition(":")
    if not all(part.isidentifier() for part in (*path.split("."), *attribute.split("."))):
        raise UserError(f"{what} {name!r} is not of the form package.module:function")
    directory = Path.cwd()
    if str(directory) not in sys.path:
        sys.path.append(str(directory))
    try:
        module = importlib.import_module(path)
    except Exception as error:  # the user's code may raise anything
        raise UserError(
            f"{what} {name!r}: importing {path} failed: {type(error).__name__}: {error}. "
            f"{_hidden(path, directory) or f'It must be installed or lie under the working directory {directory}'}"
        ) from error
    try:
        function = attrgetter(attribute)(module)
    except AttributeError as error:
        raise UserError(
            f"{what} {name!r}: {path} ({getattr(module, '__file__', 'no file')}) has no {attribute!r}"
            f"{nearest(attribute, vars(module))}{'. '.join(['', *filter(None, [_hidden(path, directory)])])}"
        ) from error
    if not callable(function):
        raise UserError(f"{what} {name!r} is of type {type(function).__name__}, not a function; expected {expected}")
    return function


def hidden_by(directory: Path) -> dict[str, Path]:
    """Return the modules in use here that others would find in this directory instead, if they looked there first.

    Returns:
        By name, the file in the directory.
    """
    found = {}
    for one in pkgutil.iter_modules([str(directory)]):
        used = getattr(sys.modules.get(one.name), "__file__", None)
        if used is not None and not Path(used).resolve().is_relative_to(directory.resolve()):
            found[one.name] = directory / (one.name if one.ispkg else f"{one.name}.py")
    return found


def _hidden(path: str, directory: Path) -> str:
    """Say that an installed package hides one of the working directory; "" where none does."""
    top = path.partition(".")[0]
    mine = importlib.machinery.PathFinder.find_spec(top, [str(directory)])
    used = getattr(sys.modules.get(top), "__file__", None)
    if mine is None or used is None or Path(used).resolve().is_relative_to(directory.resolve()):
        return ""
    return f"The installed {top!r} ({used}) hides the one in the working directory: rename yours"
